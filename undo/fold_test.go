package undo

import (
	"testing"

	"github.com/bytespace/batchlog"
)

// A stack forgets its oldest commits, and the labels of others mean nothing to it.
func TestFoldDepth(t *testing.T) {
	f := fold{label: "actor", value: "ada", depth: 3}
	ada := map[string]string{"actor": "ada"}
	for id := batchlog.ID(1); id <= 9; id++ {
		switch id {
		case 4:
			f.add(id, map[string]string{"actor": ""})
		case 5:
			f.add(id, map[string]string{"other": "ada"})
		case 6:
			f.add(id, map[string]string{LabelUndo: "x,,99,…", LabelRedo: "-3"})
		default:
			f.add(id, ada)
		}
	}
	if len(f.undo) != 3 || f.undo[0].id != 7 || f.nextUndo() != 9 || f.nextRedo() != 0 || f.last != 9 {
		t.Errorf("%+v", f)
	}
	none := fold{label: "actor", value: "", depth: 3} // a label that is not there is not an empty one
	if none.add(1, map[string]string{"other": "x"}); none.nextUndo() != 0 {
		t.Errorf("%+v", none)
	}
}
