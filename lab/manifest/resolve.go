package manifest

// resolve puts in force what was read, but for files with a mistake, and those with an object that another file has. Of two files
// with one object the one has it that had it before, else the first.
func (f *Follower) resolve() {
	owner := map[string]*followed{}
	for _, file := range f.files {
		file.doubly = nil
		for _, o := range file.good {
			owner[ID(o)] = file
		}
	}
	for f.settleConflict(owner) { // each time one file more keeps what it held, and those that do are at peace
	}
	for _, file := range f.files {
		file.good = file.content()
	}
}

// content returns the objects that a file stands for.
func (f *followed) content() []Object {
	if f.broken != nil || f.doubly != nil {
		return f.good
	}
	return f.latest
}

// settleConflict finds the first object that two files have, and takes it from one of them.
func (f *Follower) settleConflict(owner map[string]*followed) bool {
	claims := map[string]*followed{}
	taken := map[string]Object{}
	for _, o := range f.fixed {
		taken[ID(o)] = o
	}
	for _, file := range f.present() {
		for _, o := range file.content() {
			other, first := claims[ID(o)], taken[ID(o)]
			if first == nil {
				claims[ID(o)], taken[ID(o)] = file, o
				continue
			}
			loser, lost, kept := file, o, first
			if other != nil && (file.broken != nil || file.doubly != nil || owner[ID(o)] == file) && other.broken == nil && other.doubly == nil {
				loser, lost, kept = other, first, o
			}
			if loser.doubly != nil || loser.broken != nil {
				continue // both keep what they held, and that was at peace
			}
			loser.doubly = doubled(lost, kept)
			return true
		}
	}
	return false
}
