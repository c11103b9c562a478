package main

import (
	_ "github.com/bytespace/batchlog"
	_ "github.com/cockroachdb/pebble/v2"
	_ "github.com/dgraph-io/badger/v4"
	_ "github.com/nats-io/nats-server/v2/server"
	_ "github.com/nats-io/nats.go"
	_ "github.com/nats-io/nats.go/jetstream"
	_ "go.etcd.io/bbolt"
)

func main() {}
