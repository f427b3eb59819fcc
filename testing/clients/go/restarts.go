package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

// How many write at once.
const writers = 4

// What one of them was told: the newest number that was acknowledged, and all of those.
type written struct {
	newest       atomic.Int64
	acknowledged []int64
}

// Writes, reads, watches and keeps a session alive while members of the cluster come and go, until
// the input ends; then says whether what was acknowledged is there, and was seen once and in order.
func restarts(endpoints []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*eventually)
	defer cancel()
	client := must(clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: eventually, Context: ctx, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 4 * time.Second,
	}))
	defer client.Close()
	session := must(concurrency.NewSession(client, concurrency.WithTTL(600)))
	start := must(client.Put(ctx, "load/begin", "0")).Header.Revision
	seen := make(chan map[string][]int64)
	go func() { seen <- follow(ctx, client, start+1) }()

	var all sync.WaitGroup
	var loads [writers]written
	stop := make(chan struct{})
	for at := range loads {
		all.Add(2)
		go func() {
			defer all.Done()
			write(ctx, client, fmt.Sprintf("load/%d", at), &loads[at], stop)
		}()
		go func() {
			defer all.Done()
			read(ctx, client, fmt.Sprintf("load/%d", at), &loads[at], stop)
		}()
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	close(stop)
	all.Wait()
	for {
		if _, err := client.Put(ctx, "load/end", "0"); err == nil {
			break
		}
		assert(ctx.Err() == nil, "it never could be written again")
	}
	found, total := <-seen, 0
	for at := range loads {
		key := fmt.Sprintf("load/%d", at)
		numbers := map[int64]bool{}
		last := int64(0)
		for _, number := range found[key] {
			assert(number > last, key, number, "was seen after", last)
			last, numbers[number] = number, true
		}
		for _, number := range loads[at].acknowledged {
			assert(numbers[number], key, number, "was acknowledged and never seen")
		}
		total += len(loads[at].acknowledged)
	}
	select {
	case <-session.Done():
		assert(false, "the session did not outlive the restarts")
	default:
	}
	assert(session.Close() == nil)
	fmt.Printf("clientv3 outlives restarts: %d writes\n", total)
}

// Writes one number after the other; what fails may have been done or not.
func write(ctx context.Context, client *clientv3.Client, key string, load *written, stop chan struct{}) {
	for number := int64(1); ctx.Err() == nil; number++ {
		select {
		case <-stop:
			return
		default:
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := client.Put(short, key, strconv.FormatInt(number, 10))
		cancel()
		if err == nil {
			load.acknowledged = append(load.acknowledged, number)
			load.newest.Store(number)
		} else {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// Reads what is at least as new as what was acknowledged before.
func read(ctx context.Context, client *clientv3.Client, key string, load *written, stop chan struct{}) {
	for ctx.Err() == nil {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		newest := load.newest.Load()
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		answer, err := client.Get(short, key)
		cancel()
		if err != nil || newest == 0 {
			continue
		}
		number := must(strconv.ParseInt(string(answer.Kvs[0].Value), 10, 64))
		assert(number >= newest, key, number, "was read after", newest, "was acknowledged")
	}
}

// All numbers in the order in which they were seen, by a watch that is begun again where it ended
// when the member it was at had no leader.
func follow(ctx context.Context, client *clientv3.Client, from int64) map[string][]int64 {
	seen := map[string][]int64{}
	for ctx.Err() == nil {
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		watch := client.Watch(watching, "load/", clientv3.WithPrefix(), clientv3.WithRev(from))
		for answer := range watch {
			if answer.Err() != nil {
				refused(answer.Err(), "etcdserver: no leader")
				break
			}
			for _, event := range answer.Events {
				assert(event.Kv.ModRevision >= from, event, "was seen again")
				key := string(event.Kv.Key)
				if key == "load/end" {
					cancel()
					return seen
				}
				seen[key] = append(seen[key], must(strconv.ParseInt(string(event.Kv.Value), 10, 64)))
			}
			if count := len(answer.Events); count > 0 {
				from = answer.Events[count-1].Kv.ModRevision + 1
			}
		}
		cancel()
	}
	assert(false, "the end was never seen; so far", len(seen), strings.Join(client.Endpoints(), " "))
	return nil
}
