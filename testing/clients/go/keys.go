package main

import (
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Keys of an answer, in its order.
func keysOf(answer *clientv3.GetResponse) []string {
	found := []string{}
	for _, kept := range answer.Kvs {
		found = append(found, string(kept.Key))
	}
	return found
}

// Writing, reading in all orders and limits, removing.
func keys(g given) {
	c, ctx := g.client, g.ctx
	first := must(c.Put(ctx, "k/a", "1")).Header.Revision
	second := must(c.Put(ctx, "k/a", "2", clientv3.WithPrevKV()))
	equal(string(second.PrevKv.Value), "1")
	kept := must(c.Get(ctx, "k/a")).Kvs[0]
	equal([]int64{kept.CreateRevision, kept.ModRevision, kept.Version}, []int64{first, first + 1, 2})
	equal(string(must(c.Get(ctx, "k/a", clientv3.WithRev(first))).Kvs[0].Value), "1")
	equal(must(c.Get(ctx, "k/none", clientv3.WithSerializable())).Count, int64(0))
	must(c.Put(ctx, "k/b", "3"))
	must(c.Put(ctx, "k/c", "0"))
	must(c.Put(ctx, "l", "x"))
	read := func(key string, options ...clientv3.OpOption) []string {
		return keysOf(must(c.Get(ctx, key, options...)))
	}
	equal(read("k/", clientv3.WithPrefix()), []string{"k/a", "k/b", "k/c"})
	equal(read("k/b", clientv3.WithFromKey()), []string{"k/b", "k/c", "l"})
	equal(read("k/a", clientv3.WithRange("k/c")), []string{"k/a", "k/b"})
	down := clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend)
	equal(read("k/", clientv3.WithPrefix(), down), []string{"k/b", "k/a", "k/c"})
	equal(read("k/", append(clientv3.WithLastRev(), clientv3.WithPrefix())...), []string{"k/c"})
	equal(read("k/", append(clientv3.WithFirstCreate(), clientv3.WithPrefix())...), []string{"k/a"})
	equal(read("k/", append(clientv3.WithLastKey(), clientv3.WithPrefix())...), []string{"k/c"})
	equal(read("k/", clientv3.WithPrefix(), clientv3.WithMinModRev(first+2)), []string{"k/b", "k/c"})
	equal(read("k/", clientv3.WithPrefix(), clientv3.WithMaxCreateRev(first)), []string{"k/a"})
	page := must(c.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithKeysOnly()))
	assert(page.More && page.Count == 3 && len(page.Kvs) == 2 && page.Kvs[0].Value == nil, page)
	counted := must(c.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	assert(counted.Count == 3 && len(counted.Kvs) == 0, counted)
	// Value and lease can stay as they are.
	lease := must(c.Grant(ctx, 1000)).ID
	must(c.Put(ctx, "k/a", "", clientv3.WithIgnoreValue(), clientv3.WithLease(lease)))
	must(c.Put(ctx, "k/a", "4", clientv3.WithIgnoreLease()))
	kept = must(c.Get(ctx, "k/a")).Kvs[0]
	assert(string(kept.Value) == "4" && kept.Lease == int64(lease), kept)
	_, err := c.Put(ctx, "k/none", "", clientv3.WithIgnoreValue())
	refused(err, "etcdserver: key not found")
	done := must(c.Do(ctx, clientv3.OpDelete("k/", clientv3.WithPrefix(), clientv3.WithPrevKV())))
	assert(done.Del().Deleted == 3 && len(done.Del().PrevKvs) == 3, done.Del())
	equal(must(c.Delete(ctx, "l")).Deleted, int64(1))
	_, err = c.Put(ctx, "", "x")
	refused(err, "etcdserver: key is not provided")
	_, err = c.Put(ctx, "big", strings.Repeat("x", 1600*1024))
	refused(err, "etcdserver: request is too large")
	_, err = c.Get(ctx, "k", clientv3.WithRev(1<<40))
	refused(err, "required revision is a future revision")
}

// Reading piece by piece, which etcd 3.7 brought.
func streams(g given) {
	c, ctx := g.client, g.ctx
	value := strings.Repeat("v", 10_000)
	for at := range 500 {
		must(c.Put(ctx, fmt.Sprintf("stream/%03d", at), value))
	}
	defer func() { must(c.Delete(ctx, "stream/", clientv3.WithPrefix())) }()
	if !g.isNew {
		return
	}
	pieces, count := must(c.GetStream(ctx, "stream/", clientv3.WithPrefix())), 0
	for piece := range pieces {
		assert(piece.Err() == nil, piece.Err())
		count += len(piece.RangeResponse.Kvs)
	}
	equal(count, 500)
	whole := must(clientv3.GetStreamToGetResponse(must(c.GetStream(ctx, "stream/", clientv3.WithPrefix()))))
	equal(whole.Kvs, must(c.Get(ctx, "stream/", clientv3.WithPrefix())).Kvs)
}

// Compares of every kind, both branches, one inside the other.
func transactions(g given) {
	c, ctx := g.client, g.ctx
	done := must(c.Txn(ctx).If(
		clientv3.Compare(clientv3.Version("t/a"), "=", 0),
		clientv3.Compare(clientv3.LeaseValue("t/a"), "=", 0),
	).Then(
		clientv3.OpPut("t/a", "1"),
		clientv3.OpGet("t/a"),
		clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision("t/b"), ">", 0)},
			[]clientv3.Op{clientv3.OpDelete("t/c")},
			[]clientv3.Op{clientv3.OpPut("t/b", "2")},
		),
	).Else(clientv3.OpGet("t/a")).Commit())
	assert(done.Succeeded && len(done.Responses) == 3, done)
	equal(string(done.Responses[1].GetResponseRange().Kvs[0].Value), "1")
	assert(!done.Responses[2].GetResponseTxn().Succeeded)
	// All of a range at once.
	all := clientv3.Compare(clientv3.Version("t/"), "=", 1).WithPrefix()
	done = must(c.Txn(ctx).If(all, clientv3.Compare(clientv3.Value("t/b"), "!=", "1")).Then(
		clientv3.OpDelete("t/", clientv3.WithPrefix(), clientv3.WithPrevKV()),
	).Commit())
	assert(done.Succeeded && len(done.Responses[0].GetResponseDeleteRange().PrevKvs) == 2, done)
	_, err := c.Txn(ctx).Then(clientv3.OpPut("t/a", "1"), clientv3.OpPut("t/a", "2")).Commit()
	refused(err, "etcdserver: duplicate key given in txn request")
	many := make([]clientv3.Op, 129)
	for at := range many {
		many[at] = clientv3.OpPut(fmt.Sprintf("t/%d", at), "x")
	}
	_, err = c.Txn(ctx).Then(many...).Commit()
	refused(err, "etcdserver: too many operations in txn request")
}
