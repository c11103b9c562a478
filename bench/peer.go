package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A peer is a way to write durably: a database and how it is asked to.
type peer struct {
	name    string
	durable string // what makes a write durable when it returns
	slow    bool   // its cells run for a short time: it is far off and steady
	open    func(dir string, writers int) (target, error)
}

// A target is a peer's database, open on a directory of its own. close may be called once, after the last write.
type target interface {
	// writer returns what the i-th goroutine writes with.
	writer(i int) writer
	close() error
}

// A writer writes ops as one batch, atomic where the peer can. When it returns nil the batch is durable. It is for one goroutine.
type writer func(ctx context.Context, ops []op) error

// A lagger is a target that acknowledges a batch before reads show it. With others acknowledged is applied.
type lagger interface {
	// applied is the batches that reads show.
	applied(ctx context.Context) (uint64, error)
	// drain waits until that is all that were acknowledged.
	drain(ctx context.Context) (applied uint64, err error)
}

const ours = "batchlog" // the peer that the others are compared with

func allPeers() []peer {
	return []peer{
		batchlogPeer(),
		pebblePeer("pebble", pebbleAsOurs),
		pebblePeer("pebble-defaults", pebbleDefaults),
		badgerPeer(),
		bboltUpdatePeer(),
		bboltBatchPeer(),
		jetstreamPeer(),
	}
}

const defaultPeers = "batchlog,pebble,badger,bbolt-update,bbolt-batch,jetstream"

// selectPeers returns the peers of these names, separated by commas.
func selectPeers(names string) ([]peer, error) {
	var selected []peer
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(allPeers(), func(p peer) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no peer %q; there are %s", name, peerNames())
		}
		selected = append(selected, allPeers()[i])
	}
	return selected, nil
}

func peerNames() string {
	var names []string
	for _, p := range allPeers() {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}
