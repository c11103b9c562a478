package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// jetstreamCatchup fills a stream with records of 150 bytes, without a sync for each, and reads it with an ordered push
// consumer, the fastest that JetStream has. It returns records a second.
func jetstreamCatchup(ctx context.Context, dir string, count int) (_ float64, err error) {
	t, err := openJetstream(dir, 1, false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.close(), os.RemoveAll(dir)) }()
	g := newGenerator(1, 1)
	payload := make([]byte, commitBytes)
	for range count {
		o := g.next()[0]
		copy(payload[copy(payload, o.key):], o.value)
		if _, err := t.streams[0].PublishAsync(jetstreamSubject, payload); err != nil {
			return 0, err
		}
	}
	select {
	case <-t.streams[0].PublishAsyncComplete():
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	js, err := t.conns[0].JetStream()
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	read := 0
	start := time.Now()
	sub, err := js.Subscribe(jetstreamSubject, func(*nats.Msg) {
		if read++; read == count {
			close(done)
		}
	}, nats.OrderedConsumer())
	if err != nil {
		return 0, fmt.Errorf("subscribe: %w", err)
	}
	defer func() { err = errors.Join(err, sub.Unsubscribe()) }()
	select {
	case <-done:
		return float64(count) / time.Since(start).Seconds(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
