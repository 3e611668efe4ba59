package manifest

// resolve puts in force what was read, but for files with a mistake, and those with a pod that another file has. Of two files
// with one pod the one has it that had it before, else the first.
func (f *Follower) resolve() {
	owner := map[string]*followed{}
	for _, file := range f.files {
		file.doubly = nil
		for _, p := range file.good {
			owner[p.Key()] = file
		}
	}
	for f.settleConflict(owner) { // each time one file more keeps what it held, and those that do are at peace
	}
	for _, file := range f.files {
		file.good = file.content()
	}
}

// content returns the pods that a file stands for.
func (f *followed) content() []*Pod {
	if f.broken != nil || f.doubly != nil {
		return f.good
	}
	return f.latest
}

// settleConflict finds the first pod that two files have, and takes it from one of them.
func (f *Follower) settleConflict(owner map[string]*followed) bool {
	claims := map[string]*followed{}
	taken := map[string]*Pod{}
	for _, p := range f.fixed {
		taken[p.Key()] = p
	}
	for _, file := range f.present() {
		for _, p := range file.content() {
			other, first := claims[p.Key()], taken[p.Key()]
			if first == nil {
				claims[p.Key()], taken[p.Key()] = file, p
				continue
			}
			loser, lost, kept := file, p, first
			if other != nil && (file.broken != nil || file.doubly != nil || owner[p.Key()] == file) && other.broken == nil && other.doubly == nil {
				loser, lost, kept = other, first, p
			}
			if loser.doubly != nil || loser.broken != nil {
				continue // both keep what they held, and that was at peace
			}
			loser.doubly = lost.doubled(kept)
			return true
		}
	}
	return false
}
