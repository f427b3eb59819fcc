package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// The calls that a Kubernetes API server makes of its store.
func kubernetesStore(g given) {
	c := g.client
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	pod := func(at int) string { return fmt.Sprintf("/registry/pods/default/pod-%03d", at) }
	modified := func(key string, revision int64) clientv3.Cmp {
		return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
	}
	// One lease for all that ends about then.
	lease := must(c.Grant(ctx, 3600)).ID
	begin := must(c.Get(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	equal(begin.Count, int64(0))
	from := begin.Header.Revision

	seen := c.Watch(clientv3.WithRequireLeader(ctx), "/registry/pods/", clientv3.WithPrefix(),
		clientv3.WithRev(from+1), clientv3.WithPrevKV(), clientv3.WithProgressNotify())

	// Creating: only what is not there; who loses is told what is.
	create := func(key, value string, options ...clientv3.OpOption) *clientv3.TxnResponse {
		return must(c.Txn(ctx).If(modified(key, 0)).Then(clientv3.OpPut(key, value, options...)).Commit())
	}
	for at := range 250 {
		assert(create(pod(at), "new").Succeeded)
	}
	assert(!create(pod(7), "again").Succeeded)
	event := "/registry/events/default/one"
	assert(create(event, "x", clientv3.WithLease(lease)).Succeeded)
	equal(must(c.Get(ctx, event)).Kvs[0].Lease, int64(lease))

	// Updating: guarded by the revision that was read; several at once, of whom each wins in the end.
	var all sync.WaitGroup
	for at := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			known := must(c.Get(ctx, pod(0))).Kvs[0]
			for {
				value := fmt.Sprintf("%s+%d", known.Value, at)
				done := must(c.Txn(ctx).If(modified(pod(0), known.ModRevision)).
					Then(clientv3.OpPut(pod(0), value)).Else(clientv3.OpGet(pod(0))).Commit())
				if done.Succeeded {
					return
				}
				known = done.Responses[0].GetResponseRange().Kvs[0]
			}
		}()
	}
	all.Wait()
	final := must(c.Get(ctx, pod(0))).Kvs[0]
	assert(final.Version == 9 && strings.Count(string(final.Value), "+") == 8, final)

	// Listing in pages at one revision, whatever is written meanwhile.
	revision, listed, next := int64(0), 0, "/registry/pods/"
	end := clientv3.WithRange(clientv3.GetPrefixRangeEnd("/registry/pods/"))
	for more := true; more; {
		options := []clientv3.OpOption{end, clientv3.WithLimit(100)}
		if revision > 0 {
			options = append(options, clientv3.WithRev(revision))
		}
		page := must(c.Get(ctx, next, options...))
		if revision == 0 {
			revision = page.Header.Revision
		}
		listed += len(page.Kvs)
		equal(page.Count, int64(250-listed+len(page.Kvs)))
		next = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		more = page.More
		assert(create(fmt.Sprintf("/registry/pods/other/%d", listed), "later").Succeeded)
	}
	equal(listed, 250)

	// Removing: guarded too, answered with what was.
	known := must(c.Get(ctx, pod(1))).Kvs[0]
	gone := must(c.Txn(ctx).If(modified(pod(1), known.ModRevision)).
		Then(clientv3.OpDelete(pod(1), clientv3.WithPrevKV())).Else(clientv3.OpGet(pod(1))).Commit())
	assert(gone.Succeeded, gone)

	// The watch saw all of it in order, with what was before.
	last, count := from, 0
	for last < gone.Header.Revision {
		answer := <-seen
		assert(answer.Err() == nil, answer.Err())
		for _, event := range answer.Events {
			assert(event.Kv.ModRevision > last, event)
			last = event.Kv.ModRevision
			count++
			assert(event.IsCreate() == (event.PrevKv == nil), event)
		}
	}
	equal(count, 250+8+3+1)
	// A bookmark: how far this one is.
	newest := must(c.Put(ctx, "/registry/elsewhere", "x")).Header.Revision
	for done := false; !done; {
		assert(c.RequestProgress(clientv3.WithRequireLeader(ctx)) == nil)
		answer := <-seen
		done = answer.IsProgressNotify() && answer.Header.Revision >= newest
	}

	// Forgetting: one of the API servers does it, as agreed by a key.
	forget := func(time, revision int64) (int64, int64) {
		key := "compact_rev_key"
		done := must(c.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), "=", time)).
			Then(clientv3.OpPut(key, fmt.Sprint(revision))).Else(clientv3.OpGet(key)).Commit())
		if !done.Succeeded {
			return done.Responses[0].GetResponseRange().Kvs[0].Version, done.Header.Revision
		}
		if revision > 0 {
			must(c.Compact(ctx, revision))
		}
		return time + 1, done.Header.Revision
	}
	time, at := forget(0, 0)
	equal(time, int64(1))
	rival, _ := forget(0, 0)
	equal(rival, int64(1))
	time, _ = forget(1, at)
	equal(time, int64(2))
	_, err := c.Get(ctx, "/registry/pods/", end, clientv3.WithRev(revision))
	equal(err, rpctypes.ErrCompacted)
	answer := <-c.Watch(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithRev(from+1))
	equal(answer.Err(), rpctypes.ErrCompacted)
	must(c.Delete(ctx, "/registry/", clientv3.WithPrefix()))
}

// The same as an interface that newer API servers use.
func kubernetesInterface(g given) {
	client := must(kubernetes.New(clientv3.Config{Endpoints: []string{g.endpoint}, DialTimeout: eventually}))
	defer client.Close()
	store, ctx := client.Kubernetes, g.ctx
	put := must(store.OptimisticPut(ctx, "/kube/a", []byte("1"), 0, kubernetes.PutOptions{}))
	assert(put.Succeeded, put)
	lost := must(store.OptimisticPut(ctx, "/kube/a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true}))
	assert(!lost.Succeeded && string(lost.KV.Value) == "1", lost)
	again := must(store.OptimisticPut(ctx, "/kube/a", []byte("3"), put.Revision, kubernetes.PutOptions{}))
	assert(again.Succeeded, again)
	must(store.OptimisticPut(ctx, "/kube/b", []byte("4"), 0, kubernetes.PutOptions{}))
	old := must(store.Get(ctx, "/kube/a", kubernetes.GetOptions{Revision: put.Revision}))
	equal(string(old.KV.Value), "1")
	page := must(store.List(ctx, "/kube/", kubernetes.ListOptions{Limit: 1}))
	equal([]int64{int64(len(page.Kvs)), page.Count}, []int64{1, 2})
	rest := kubernetes.ListOptions{Revision: page.Revision, Continue: string(page.Kvs[0].Key) + "\x00"}
	equal(contents(must(store.List(ctx, "/kube/", rest)).Kvs), map[string]string{"/kube/b": "4"})
	equal(must(store.Count(ctx, "/kube/", kubernetes.CountOptions{})), int64(2))
	kept := must(store.OptimisticDelete(ctx, "/kube/a", put.Revision, kubernetes.DeleteOptions{GetOnFailure: true}))
	assert(!kept.Succeeded && string(kept.KV.Value) == "3", kept)
	assert(must(store.OptimisticDelete(ctx, "/kube/a", again.Revision, kubernetes.DeleteOptions{})).Succeeded)
}
