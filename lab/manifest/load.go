package manifest

import "io"

// Text is a manifest as its file holds it.
type Text struct {
	File string // for messages
	Text []byte
}

// Load reads the files that Read would read, without looking at what they say.
func Load(stdin io.Reader, paths ...string) ([]Text, error) {
	var all []Text
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			name, b, err := contents(stdin, file)
			if err != nil {
				return nil, err
			}
			all = append(all, Text{File: name, Text: b})
		}
	}
	return all, nil
}
