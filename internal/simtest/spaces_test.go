package simtest

// Which of the world's spaces a program picks.

// writable is a space that anyone writes to.
func (r *run) writable() int {
	if !r.wide {
		return r.rng.IntN(worldPlain)
	}
	if n := r.rng.IntN(worldPlain + 6); n < worldPlain {
		return n
	} else if n < worldPlain+4 {
		return spaceHooked
	}
	return spaceStamped
}

// readable is a space in which a read waits for no task.
func (r *run) readable() int {
	if !r.wide {
		return r.rng.IntN(worldPlain)
	}
	return r.rng.IntN(spaceDerived)
}

// followable is how many spaces a tail may be about, those with the numbers below.
func (r *run) followable() int {
	if !r.wide {
		return worldPlain
	}
	return len(worldPaths)
}
