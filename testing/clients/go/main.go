// The operations of etcd's Go client, and of all that comes with it, with the server at the address
// given: `client-check HOST PORT`; or with a cluster whose members come and go while it runs:
// `client-check restarts ENDPOINT...`.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// How long all of it may take, on a busy machine.
const eventually = 8 * time.Minute

// Asserts that something holds, else ends the program and says where it did not.
func assert(holds bool, said ...any) {
	if holds {
		return
	}
	_, file, line, _ := runtime.Caller(1)
	fail(file, line, said...)
}

// Asserts that there is no error and hands on what came with it.
func must[T any](value T, err error) T {
	if err != nil {
		_, file, line, _ := runtime.Caller(1)
		fail(file, line, err)
	}
	return value
}

func equal(got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		_, file, line, _ := runtime.Caller(1)
		fail(file, line, fmt.Sprintf("%v, not %v", got, wanted))
	}
}

// Asserts that an error says so.
func refused(err error, text string) {
	if err == nil || !strings.Contains(err.Error(), text) {
		_, file, line, _ := runtime.Caller(1)
		fail(file, line, fmt.Sprintf("%v, not %q", err, text))
	}
}

func fail(file string, line int, said ...any) {
	fmt.Fprintf(os.Stderr, "%s:%d: %s", file, line, fmt.Sprintln(said...))
	os.Exit(1)
}

// What every part is given.
type given struct {
	ctx      context.Context
	client   *clientv3.Client
	endpoint string
	// Whether it knows what etcd 3.7 brought.
	isNew bool
}

// A client of its own, by whatever is asked for beyond the endpoint.
func (g given) connect(config clientv3.Config) *clientv3.Client {
	config.Endpoints = []string{g.endpoint}
	config.DialTimeout = eventually
	config.Context = g.ctx
	config.Logger = zap.NewNop()
	return must(clientv3.New(config))
}

func main() {
	if os.Args[1] == "restarts" {
		restarts(os.Args[2:])
		return
	}
	endpoint := "http://" + net.JoinHostPort(os.Args[1], os.Args[2])
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	g := given{ctx: ctx, endpoint: endpoint}
	asking := g.connect(clientv3.Config{})
	version := must(asking.Status(ctx, endpoint)).Version
	g.isNew = !strings.HasPrefix(version, "3.5.") && !strings.HasPrefix(version, "3.4.")
	asking.Close()
	g.client = g.connect(clientv3.Config{RejectOldCluster: g.isNew})
	defer g.client.Close()
	for _, part := range []func(given){
		keys, streams, transactions, leases, watches, compactedWatch, sessions, mutexes, elections,
		softwareTransactions, namespaces, leasingCache, orderedReads, mirrors, names, kubernetesStore,
		kubernetesInterface, clusterCalls, maintenance, accounts,
	} {
		name := runtime.FuncForPC(reflect.ValueOf(part).Pointer()).Name()
		began := time.Now()
		part(g)
		fmt.Printf("%s: %v\n", name, time.Since(began).Round(time.Millisecond))
	}
	fmt.Println("clientv3 works")
}
