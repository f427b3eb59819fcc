package main

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Times of keys, kept alive and not.
func leases(g given) {
	c, ctx := g.client, g.ctx
	lease := must(c.Grant(ctx, 1000))
	equal(lease.TTL, int64(1000))
	must(c.Put(ctx, "lease/a", "x", clientv3.WithLease(lease.ID)))
	left := must(c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()))
	assert(left.GrantedTTL == 1000 && left.TTL <= 1000 && string(left.Keys[0]) == "lease/a", left)
	listed := false
	for _, each := range must(c.Leases(ctx)).Leases {
		listed = listed || each.ID == lease.ID
	}
	assert(listed)
	equal(must(c.KeepAliveOnce(ctx, lease.ID)).TTL, int64(1000))
	must(c.Revoke(ctx, lease.ID))
	equal(must(c.Get(ctx, "lease/a")).Count, int64(0))
	equal(must(c.TimeToLive(ctx, lease.ID)).TTL, int64(-1))
	_, err := c.KeepAliveOnce(ctx, lease.ID)
	refused(err, "etcdserver: requested lease not found")
	_, err = c.Revoke(ctx, lease.ID)
	refused(err, "etcdserver: requested lease not found")
	_, err = c.Put(ctx, "lease/a", "x", clientv3.WithLease(lease.ID))
	refused(err, "etcdserver: requested lease not found")
	_, err = c.Grant(ctx, 9_000_000_001)
	refused(err, "too large lease TTL")

	// Kept alive beyond its time on one stream with another one.
	short, other := must(c.Grant(ctx, 6)).ID, must(c.Grant(ctx, 9)).ID
	must(c.Put(ctx, "lease/b", "x", clientv3.WithLease(short)))
	aliveFor, stop := context.WithCancel(ctx)
	alive, alsoAlive := must(c.KeepAlive(aliveFor, short)), must(c.KeepAlive(aliveFor, other))
	for range 4 {
		equal((<-alive).TTL, int64(6))
	}
	equal((<-alsoAlive).TTL, int64(9))
	equal(must(c.Get(ctx, "lease/b")).Count, int64(1))
	gone := c.Watch(ctx, "lease/b", clientv3.WithPrevKV())
	stop()
	event := (<-gone).Events[0]
	assert(event.Type == clientv3.EventTypeDelete && string(event.PrevKv.Value) == "x", event)
	// Revoked under the hands of who keeps it alive.
	short = must(c.Grant(ctx, 6)).ID
	alive = must(c.KeepAlive(ctx, short))
	<-alive
	must(c.Revoke(ctx, short))
	for range alive {
		time.Sleep(time.Millisecond)
	}
}
