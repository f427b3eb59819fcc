package main

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// That many events as text.
func told(channel clientv3.WatchChan, count int) []string {
	seen := []string{}
	for len(seen) < count {
		answer, open := <-channel
		assert(open && answer.Err() == nil, answer.Err(), seen)
		for _, event := range answer.Events {
			text := fmt.Sprintf("%s %s %s", event.Type, event.Kv.Key, event.Kv.Value)
			if event.PrevKv != nil {
				text += " was " + string(event.PrevKv.Value)
			}
			seen = append(seen, text)
		}
	}
	return seen
}

// The past and what comes, filtered, with what was before, in pieces, with progress.
func watches(g given) {
	c := g.client
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	start := must(c.Put(ctx, "w/a", "1")).Header.Revision
	must(c.Put(ctx, "w/b", "2"))
	must(c.Put(ctx, "w/a", "3"))
	must(c.Delete(ctx, "w/b"))
	all := c.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(start), clientv3.WithPrevKV())
	equal(told(all, 4), []string{"PUT w/a 1", "PUT w/b 2", "PUT w/a 3 was 1", "DELETE w/b  was 2"})
	writes := c.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(start), clientv3.WithFilterDelete())
	equal(told(writes, 3), []string{"PUT w/a 1", "PUT w/b 2", "PUT w/a 3"})
	removals := c.Watch(ctx, "w/", clientv3.WithFromKey(), clientv3.WithRev(start), clientv3.WithFilterPut())
	equal(told(removals, 1), []string{"DELETE w/b "})
	created := <-c.Watch(ctx, "w/c", clientv3.WithCreatedNotify())
	assert(created.Created && created.Header.Revision >= start+3, created)
	// Of one transaction all events come together.
	must(c.Txn(ctx).Then(clientv3.OpPut("w/x", "1"), clientv3.OpPut("w/y", "2")).Commit())
	answer := <-all
	assert(len(answer.Events) == 2 && answer.Events[0].Kv.ModRevision == answer.Header.Revision, answer)
	// Asked for, progress says how far all watches of a stream are.
	own := clientv3.WithRequireLeader(ctx)
	progressing := c.Watch(own, "w/none", clientv3.WithCreatedNotify())
	<-progressing
	newest := must(c.Put(ctx, "other", "x")).Header.Revision
	for newest > 0 {
		assert(c.RequestProgress(own) == nil)
		if answer = <-progressing; answer.Header.Revision >= newest {
			assert(answer.IsProgressNotify(), answer)
			newest = 0
		}
	}
	// More than fits one message.
	value := strings.Repeat("v", 700*1024)
	first := must(c.Put(ctx, "f/0", value)).Header.Revision
	for at := 1; at < 6; at++ {
		must(c.Put(ctx, fmt.Sprintf("f/%d", at), value))
	}
	pieces := c.Watch(ctx, "f/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFragment())
	equal(len(told(pieces, 6)), 6)
	must(c.Delete(ctx, "f/", clientv3.WithPrefix()))
	// Many on one stream, of which each sees its own.
	var many []clientv3.WatchChan
	for at := range 200 {
		many = append(many, c.Watch(ctx, fmt.Sprintf("m/%d", at)))
	}
	for at := range 200 {
		must(c.Put(ctx, fmt.Sprintf("m/%d", at), "x"))
	}
	for at, channel := range many {
		equal(told(channel, 1), []string{fmt.Sprintf("PUT m/%d x", at)})
	}
	cancel()
	_, open := <-many[0]
	assert(!open)
}

// What is forgotten cannot be watched; whoever asks is told from where it can.
func compactedWatch(g given) {
	c, ctx := g.client, g.ctx
	revision := must(c.Put(ctx, "w/a", "4")).Header.Revision
	must(c.Compact(ctx, revision, clientv3.WithCompactPhysical()))
	answer := <-c.Watch(ctx, "w/a", clientv3.WithRev(revision-1))
	assert(answer.Canceled && answer.CompactRevision == revision, answer)
	equal(answer.Err(), rpctypes.ErrCompacted)
	_, err := c.Get(ctx, "w/a", clientv3.WithRev(revision-1))
	equal(err, rpctypes.ErrCompacted)
	_, err = c.Compact(ctx, revision)
	equal(err, rpctypes.ErrCompacted)
	_, err = c.Compact(ctx, revision+1000)
	equal(err, rpctypes.ErrFutureRev)
}
