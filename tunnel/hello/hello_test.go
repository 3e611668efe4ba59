package hello

import (
	"encoding/hex"
	"errors"
	"testing"
)

var probe = Message{
	Version: Version, Kind: Probe, Can: Trains | RemoteChecksum, MTU: 1450, Length: HeaderLen + 12, Instance: 0x0102030405060708, Nonce: 0x1112131415161718, Part: 5,
}

const probeBytes = "6d776869" + "01010003" + "05aa002c" + "0102030405060708" + "1112131415161718" + "05000000"

func encode(m Message, padding int) []byte {
	b := make([]byte, HeaderLen+padding)
	m.Encode(b)
	return b
}

func TestRoundTrip(t *testing.T) {
	answer := probe
	answer.Kind, answer.Length = Answer, 1450
	token := answer
	token.Can, token.Token = Trains|Tokens, [6]byte{2, 1, 2, 3, 4, 5}
	for _, tt := range []struct {
		name    string
		m       Message
		padding int
	}{
		{"probe", probe, 12}, {"answer", answer, 0}, {"answer with a token", token, tokenLen},
		{"largest", Message{255, Answer, 0xffff, 65535, 65535, 1<<64 - 1, 1<<64 - 1, 255, [6]byte{255, 255, 255, 255, 255, 255}}, tokenLen},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Message
			if err := Decode(encode(tt.m, tt.padding), &got); err != nil || got != tt.m {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.m)
			}
		})
	}
	if got := hex.EncodeToString(encode(probe, 0)); got != probeBytes {
		t.Errorf("got  %s\nwant %s", got, probeBytes)
	}
	if got := hex.EncodeToString(encode(token, tokenLen)[HeaderLen:]); got != "020102030405"+"0000" {
		t.Errorf("token %s", got)
	}
}

func TestDecodeErrors(t *testing.T) {
	good := encode(probe, 12)
	edit := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	answerWithToken := encode(Message{Version: Version, Kind: Answer, Can: Tokens, MTU: LeastMTU, Length: HeaderLen}, tokenLen)
	withMTU := func(mtu uint16) []byte {
		m := probe
		m.MTU = mtu
		return encode(m, 12)
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want error
	}{
		{"magic", edit(0, 0), ErrFormat},
		{"version 0", edit(4, 0), ErrFormat},
		{"kind 0", edit(5, 0), ErrFormat},
		{"kind 3", edit(5, 3), ErrFormat},
		{"no node's MTU", withMTU(LeastMTU - 1), ErrFormat},
		{"the least MTU", withMTU(LeastMTU), nil},
		{"longer than it is", edit(11, HeaderLen+13), ErrShort},
		{"shorter than its header", edit(11, HeaderLen-1), ErrShort},
		{"padding cut off", good[:len(good)-1], ErrShort},
		{"a later version", edit(4, 9), nil},
		{"unknown capabilities", edit(6, 0xff), nil},
		{"more behind it", append(good, 0), nil},
		{"a token that is missing", answerWithToken[:HeaderLen], ErrShort},
		{"a token cut off", answerWithToken[:HeaderLen+tokenLen-1], ErrShort},
		{"a token", answerWithToken, nil},
	} {
		var m Message
		if err := Decode(tt.b, &m); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	for n := range HeaderLen {
		var m Message
		if err := Decode(good[:n], &m); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestHas(t *testing.T) {
	if c := Trains; !c.Has(Trains) || c.Has(RemoteChecksum) || c.Has(Trains|RemoteChecksum) || !c.Has(0) {
		t.Error("capabilities of a sender that takes trains only")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(probe, 12))             // a probe
	f.Add(encode(probe, 0))              // one that was cut off
	f.Add([]byte("mwhi"))                // a header that was
	f.Add(make([]byte, HeaderLen))       // nothing
	f.Add(encode(Message{Kind: 2}, 100)) // version 0
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again Message
		if Decode(b, &m) != nil {
			return
		}
		if err := Decode(encode(m, int(m.Length)), &again); err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

func TestNoAllocs(t *testing.T) {
	b, m := encode(probe, 12), Message{}
	if got := testing.AllocsPerRun(100, func() { m.Encode(b); _ = Decode(b, &m) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
