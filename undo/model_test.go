package undo_test

import (
	"maps"
	"slices"
)

// takeBack is the model of an undo: the state that comes out of now when the commit between before and after is taken back, and the keys that don't hold what it has left.
func takeBack(now, before, after map[string]string) (out map[string]string, conflicts []string) {
	out = maps.Clone(now)
	for _, k := range changed(before, after) {
		left, has := after[k]
		is, there := now[k]
		if has != there || left != is {
			conflicts = append(conflicts, k)
			continue
		}
		delete(out, k)
		if old, had := before[k]; had {
			out[k] = old
		}
	}
	return out, conflicts
}

// changed are the keys that are not the same in two states, sorted.
func changed(a, b map[string]string) []string {
	var keys []string
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			keys = append(keys, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}
