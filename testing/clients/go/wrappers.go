package main

import (
	"context"
	"fmt"
	"net"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/client/v3/ordering"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// A part of the keys as if it were all.
func namespaces(g given) {
	kv := namespace.NewKV(g.client, "ns/")
	watcher := namespace.NewWatcher(g.client, "ns/")
	lease := namespace.NewLease(g.client, "ns/")
	revision := must(kv.Put(g.ctx, "a", "1")).Header.Revision
	must(g.client.Put(g.ctx, "nt", "not of it"))
	equal(string(must(g.client.Get(g.ctx, "ns/a")).Kvs[0].Value), "1")
	equal(keysOf(must(kv.Get(g.ctx, "", clientv3.WithFromKey()))), []string{"a"})
	done := must(kv.Txn(g.ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(
		clientv3.OpPut("b", "2"), clientv3.OpGet("", clientv3.WithPrefix()),
	).Commit())
	equal(string(done.Responses[1].GetResponseRange().Kvs[1].Key), "b")
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	seen := watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(revision))
	equal(told(seen, 2), []string{"PUT a 1", "PUT b 2"})
	id := must(lease.Grant(g.ctx, 1000)).ID
	must(kv.Put(g.ctx, "c", "3", clientv3.WithLease(id)))
	equal(string(must(lease.TimeToLive(g.ctx, id, clientv3.WithAttachedKeys())).Keys[0]), "c")
	must(lease.Revoke(g.ctx, id))
	equal(must(kv.Delete(g.ctx, "", clientv3.WithPrefix())).Deleted, int64(2))
	must(g.client.Delete(g.ctx, "nt"))
}

// Reads from memory while nobody else writes, with leases that others take away.
func leasingCache(g given) {
	one, closeOne, err := leasing.NewKV(g.client, "leasing/")
	assert(err == nil, err)
	defer closeOne()
	two, closeTwo, err := leasing.NewKV(g.client, "leasing/")
	assert(err == nil, err)
	defer closeTwo()
	must(g.client.Put(g.ctx, "cached", "1"))
	for at := range 20 {
		equal(string(must(one.Get(g.ctx, "cached")).Kvs[0].Value), fmt.Sprint(at+1))
		must(two.Put(g.ctx, "cached", fmt.Sprint(at+2)))
		equal(string(must(two.Get(g.ctx, "cached")).Kvs[0].Value), fmt.Sprint(at+2))
	}
	done := must(one.Txn(g.ctx).If(clientv3.Compare(clientv3.Value("cached"), "=", "21")).Then(
		clientv3.OpPut("cached", "22"),
	).Else(clientv3.OpGet("cached")).Commit())
	assert(done.Succeeded, done)
	equal(string(must(two.Get(g.ctx, "cached")).Kvs[0].Value), "22")
	must(one.Delete(g.ctx, "cached"))
	equal(must(two.Get(g.ctx, "cached")).Count, int64(0))
}

// Never older than what was read before.
func orderedReads(g given) {
	kv := ordering.NewKV(g.client, ordering.NewOrderViolationSwitchEndpointClosure(g.client))
	for at := range 50 {
		must(kv.Put(g.ctx, "ordered", fmt.Sprint(at)))
		equal(string(must(kv.Get(g.ctx, "ordered", clientv3.WithSerializable())).Kvs[0].Value), fmt.Sprint(at))
	}
	must(kv.Txn(g.ctx).Then(clientv3.OpGet("ordered")).Commit())
}

// All there is, page by page, then what changes.
func mirrors(g given) {
	for at := range 30 {
		must(g.client.Put(g.ctx, fmt.Sprintf("mirror/%02d", at), "x"))
	}
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	syncer := mirror.NewSyncer(g.client, "mirror/", 0)
	base, errors := syncer.SyncBase(ctx)
	count := 0
	for page := range base {
		count += len(page.Kvs)
	}
	assert(<-errors == nil)
	equal(count, 30)
	changes := syncer.SyncUpdates(ctx)
	must(g.client.Delete(g.ctx, "mirror/", clientv3.WithPrefix()))
	equal(len(told(changes, 30)), 30)
}

// A service that is found by its name.
func names(g given) {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener)
	defer server.Stop()
	manager := must(endpoints.NewManager(g.client, "services/health"))
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	updates := must(manager.NewWatchChannel(ctx))
	where := endpoints.Endpoint{Addr: listener.Addr().String(), Metadata: map[string]any{"weight": 1.0}}
	assert(manager.AddEndpoint(g.ctx, "services/health/one", where) == nil)
	told := <-updates
	assert(told[0].Op == endpoints.Add && told[0].Endpoint.Addr == where.Addr, told)
	equal(must(manager.List(g.ctx)), endpoints.Key2EndpointMap{"services/health/one": where})
	dial := must(grpc.NewClient("etcd:///services/health",
		grpc.WithResolvers(must(resolver.NewBuilder(g.client))),
		grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer dial.Close()
	request := &healthpb.HealthCheckRequest{}
	answer := must(healthpb.NewHealthClient(dial).Check(g.ctx, request, grpc.WaitForReady(true)))
	equal(answer.Status, healthpb.HealthCheckResponse_SERVING)
	assert(manager.DeleteEndpoint(g.ctx, "services/health/one") == nil)
	told = <-updates
	assert(told[0].Op == endpoints.Delete, told)
}

// Keys and values of an answer.
func contents(kept []*mvccpb.KeyValue) map[string]string {
	found := map[string]string{}
	for _, each := range kept {
		found[string(each.Key)] = string(each.Value)
	}
	return found
}
