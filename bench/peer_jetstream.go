package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetstreamPeer publishes to a stream of an embedded NATS server, one replica, file storage, with server.Options.SyncAlways (in its file: sync_interval:
// always): the server syncs the block's file before it acknowledges. It is reached as its users reach it, over
// loopback TCP: one connection for one writer, four for more. A batch is one record, keys and values one behind the
// other: its cheapest form.
func jetstreamPeer() peer {
	return peer{
		name: "jetstream", durable: "Publish, server.Options.SyncAlways, over loopback", slow: true,
		open: func(dir string, writers int) (target, error) { return openJetstream(dir, min(writers, 4), true) },
	}
}

const jetstreamSubject = "a"

type jetstreamTarget struct {
	server  *server.Server
	conns   []*nats.Conn
	streams []jetstream.JetStream // one a connection
}

func openJetstream(dir string, conns int, syncAlways bool) (*jetstreamTarget, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: dir, SyncAlways: syncAlways,
	})
	if err != nil {
		return nil, err
	}
	t := &jetstreamTarget{server: s}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.Join(errors.New("nats server is not ready after 10 s"), t.close())
	}
	if err := t.connect(conns); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *jetstreamTarget) connect(conns int) error {
	for range conns {
		nc, err := nats.Connect(t.server.ClientURL())
		if err != nil {
			return err
		}
		t.conns = append(t.conns, nc)
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		t.streams = append(t.streams, js)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := t.streams[0].CreateStream(ctx, jetstream.StreamConfig{
		Name: "bench", Subjects: []string{jetstreamSubject}, Storage: jetstream.FileStorage, Replicas: 1,
	})
	if err != nil {
		return fmt.Errorf("create stream: %w", err)
	}
	return nil
}

func (t *jetstreamTarget) writer(i int) writer {
	js := t.streams[i%len(t.streams)]
	var payload []byte
	return func(ctx context.Context, ops []op) error {
		payload = payload[:0]
		for _, o := range ops {
			payload = append(append(payload, o.key...), o.value...)
		}
		_, err := js.Publish(ctx, jetstreamSubject, payload)
		return err
	}
}

func (t *jetstreamTarget) close() error {
	for _, nc := range t.conns {
		nc.Close()
	}
	t.server.Shutdown()
	t.server.WaitForShutdown()
	return nil
}
