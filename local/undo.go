package local

import (
	"context"
	"fmt"

	"github.com/bytespace/batchlog"
)

// Revert is as batchlog.Stage says.
func (g *stage) Revert(context.Context, batchlog.Revert) error {
	return fmt.Errorf("revert: %w", batchlog.ErrUnsupported)
}
