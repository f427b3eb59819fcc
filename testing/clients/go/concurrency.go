package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/experimental/recipes"
)

// A session's keys end with it.
func sessions(g given) {
	session := must(concurrency.NewSession(g.client, concurrency.WithTTL(9)))
	lease := session.Lease()
	again := must(concurrency.NewSession(g.client, concurrency.WithLease(lease)))
	again.Orphan()
	assert(must(g.client.TimeToLive(g.ctx, lease)).TTL > 0)
	must(g.client.Revoke(g.ctx, lease))
	<-session.Done()
	short := must(concurrency.NewSession(g.client, concurrency.WithTTL(60)))
	assert(short.Close() == nil)
	equal(must(g.client.TimeToLive(g.ctx, short.Lease())).TTL, int64(-1))
}

// One at a time, in the order of asking; who dies without a word is followed by the next.
func mutexes(g given) {
	counter := 0
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			session := must(concurrency.NewSession(g.client, concurrency.WithTTL(60)))
			defer session.Close()
			mutex := concurrency.NewMutex(session, "mutex/counter")
			for range 5 {
				assert(mutex.Lock(g.ctx) == nil)
				seen := counter
				owned := must(g.client.Txn(g.ctx).If(mutex.IsOwner()).Commit())
				assert(owned.Succeeded)
				counter = seen + 1
				assert(mutex.Unlock(g.ctx) == nil)
			}
		}()
	}
	all.Wait()
	equal(counter, 40)

	first := must(concurrency.NewSession(g.client, concurrency.WithTTL(6)))
	second := must(concurrency.NewSession(g.client, concurrency.WithTTL(60)))
	defer second.Close()
	held, wanted := concurrency.NewMutex(first, "mutex/job"), concurrency.NewMutex(second, "mutex/job")
	assert(held.Lock(g.ctx) == nil)
	equal(wanted.TryLock(g.ctx), concurrency.ErrLocked)
	soon, cancel := context.WithTimeout(g.ctx, 100*time.Millisecond)
	assert(errors.Is(wanted.Lock(soon), context.DeadlineExceeded))
	cancel()
	first.Orphan()
	assert(wanted.Lock(g.ctx) == nil)
	assert(wanted.Unlock(g.ctx) == nil)

	// What is built of the same pieces.
	lock := recipe.NewRWMutex(second, "recipe/rw")
	assert(lock.RLock() == nil && lock.RUnlock() == nil && lock.Lock() == nil && lock.Unlock() == nil)
	queue := recipe.NewPriorityQueue(g.client, "recipe/queue")
	assert(queue.Enqueue("later", 2) == nil && queue.Enqueue("sooner", 1) == nil)
	equal([]string{must(queue.Dequeue()), must(queue.Dequeue())}, []string{"sooner", "later"})
	barrier := recipe.NewBarrier(g.client, "recipe/barrier")
	assert(barrier.Hold() == nil)
	passed := make(chan error)
	go func() { passed <- recipe.NewBarrier(g.client, "recipe/barrier").Wait() }()
	assert(barrier.Release() == nil && <-passed == nil)
}

// One leader after the other, whom everybody can see.
func elections(g given) {
	session := must(concurrency.NewSession(g.client, concurrency.WithTTL(60)))
	other := must(concurrency.NewSession(g.client, concurrency.WithTTL(60)))
	defer session.Close()
	defer other.Close()
	one := concurrency.NewElection(session, "election")
	two := concurrency.NewElection(other, "election")
	_, err := one.Leader(g.ctx)
	equal(err, concurrency.ErrElectionNoLeader)
	assert(one.Campaign(g.ctx, "one") == nil)
	ctx, cancel := context.WithCancel(g.ctx)
	seen := one.Observe(ctx)
	equal(string((<-seen).Kvs[0].Value), "one")
	won := make(chan error)
	go func() { won <- two.Campaign(g.ctx, "two") }()
	assert(one.Proclaim(g.ctx, "still one") == nil)
	equal(string((<-seen).Kvs[0].Value), "still one")
	equal(string(must(two.Leader(g.ctx)).Kvs[0].Value), "still one")
	resumed := concurrency.ResumeElection(session, "election", one.Key(), one.Rev())
	assert(resumed.Resign(g.ctx) == nil && <-won == nil)
	equal(string((<-seen).Kvs[0].Value), "two")
	cancel()
	assert(two.Resign(g.ctx) == nil)
}

// Sums are moved by many at once, at each isolation that keeps them.
func softwareTransactions(g given) {
	must(g.client.Put(g.ctx, "stm/a", "100"))
	must(g.client.Put(g.ctx, "stm/b", "0"))
	levels := []concurrency.Isolation{
		concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads,
	}
	var all sync.WaitGroup
	for at := range 30 {
		all.Add(1)
		go func() {
			defer all.Done()
			move := func(stm concurrency.STM) error {
				a, b := must(strconv.Atoi(stm.Get("stm/a"))), must(strconv.Atoi(stm.Get("stm/b")))
				stm.Put("stm/a", strconv.Itoa(a-1))
				stm.Put("stm/b", strconv.Itoa(b+1))
				stm.Put("stm/now", "x")
				stm.Del("stm/now")
				return nil
			}
			must(concurrency.NewSTM(g.client, move,
				concurrency.WithIsolation(levels[at%3]), concurrency.WithAbortContext(g.ctx),
				concurrency.WithPrefetch("stm/a", "stm/b")))
		}()
	}
	all.Wait()
	equal(string(must(g.client.Get(g.ctx, "stm/a")).Kvs[0].Value), "70")
	equal(string(must(g.client.Get(g.ctx, "stm/b")).Kvs[0].Value), "30")
	equal(must(g.client.Get(g.ctx, "stm/now")).Count, int64(0))
}
