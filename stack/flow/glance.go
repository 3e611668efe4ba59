package flow

// Glance is a Table as one looks at it who leaves no trace: what would be entered or noted is not, and everything else is as
// the table says.
type Glance struct{ *Table }

// Enter is the Table's for a flow that is not there, or would not be after Renew, but enters nothing: the copy is of what would
// be there.
func (g Glance) Enter(p *Pair) (c Copy, ok bool) {
	p.Entered = false
	if twin, ok := g.Peek(p.Translated.Reverse()); ok && *twin.LeavesAs() != p.Flow.Reverse() {
		return Copy{}, false
	}
	c = Copy{Flow: p.Flow, Verdict: p.Verdict, Generation: p.Generation}
	if p.Translated != p.Flow {
		c.Translated = p.Translated
	}
	return c, true
}

// Rejudge is the Table's, but gives the new verdict to the copy alone.
func (g Glance) Rejudge(c *Copy, v Verdict, generation uint32) (Copy, bool) {
	fresh := *c
	if g.entries[c.ref].answersOutside() {
		v = Verdict{Action: ToOutside}
	}
	fresh.Verdict, fresh.Generation, fresh.version = v, generation, 0
	return fresh, true
}

// Renew frees nothing.
func (g Glance) Renew(c *Copy, forsaken bool) bool { return g.renews(c, forsaken) }

// Opening notes nothing.
func (g Glance) Opening(*Copy) {}

// Closing notes nothing.
func (g Glance) Closing(*Copy, uint8) {}

// NewCache returns a cache whose lookups leave no trace.
func (g Glance) NewCache() *Cache {
	c := NewCache(g.Table)
	c.glance = true
	return c
}
