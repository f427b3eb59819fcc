package main

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
)

// Members: listed, changed; what would cost the only member its quorum is refused.
func clusterCalls(g given) {
	c, ctx := g.client, g.ctx
	members := must(c.MemberList(ctx, clientv3.WithSerializable())).Members
	assert(len(members) == 1 && members[0].Name != "" && !members[0].IsLearner, members)
	only := members[0]
	assert(c.Sync(ctx) == nil)
	equal(c.Endpoints(), only.ClientURLs)
	c.SetEndpoints(g.endpoint)
	must(c.MemberUpdate(ctx, only.ID, only.PeerURLs))
	_, err := c.MemberAdd(ctx, only.PeerURLs)
	equal(err, rpctypes.ErrPeerURLExist)
	_, err = c.MemberRemove(ctx, 4711)
	equal(err, rpctypes.ErrMemberNotFound)
	if g.isNew {
		// Version 3.5 takes no change of members any more once it was asked this.
		_, err = c.MemberPromote(ctx, only.ID)
		equal(err, rpctypes.ErrMemberNotLearner)
	}
	// A learner that never comes does not vote: it can be there.
	learner := must(c.MemberAddAsLearner(ctx, []string{"http://127.0.0.1:1"})).Member
	assert(learner.IsLearner, learner)
	_, err = c.MemberPromote(ctx, learner.ID)
	equal(err, rpctypes.ErrMemberLearnerNotReady)
	_, err = c.MemberAddAsLearner(ctx, []string{"http://127.0.0.1:2"})
	equal(err, rpctypes.ErrTooManyLearners)
	_, err = c.MoveLeader(ctx, 4711)
	refused(err, "etcdserver: bad leader transferee")
	equal(len(must(c.MemberRemove(ctx, learner.ID)).Members), 1)
}

// Status, alarms, hashes, copies.
func maintenance(g given) {
	c, ctx := g.client, g.ctx
	status := must(c.Status(ctx, g.endpoint))
	assert(status.Leader == status.Header.MemberId && status.DbSize >= status.DbSizeInUse, status)
	assert(status.RaftAppliedIndex <= status.RaftIndex && status.RaftTerm > 0 && len(status.Errors) == 0, status)
	must(c.Defragment(ctx, g.endpoint))
	one := must(c.HashKV(ctx, g.endpoint, 0))
	equal(must(c.HashKV(ctx, g.endpoint, one.Header.Revision)).Hash, one.Hash)
	_, err := c.HashKV(ctx, g.endpoint, one.Header.Revision+1000)
	equal(err, rpctypes.ErrFutureRev)

	raw := pb.NewMaintenanceClient(c.ActiveConnection())
	full := &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: pb.AlarmType_NOSPACE,
	}
	must(raw.Alarm(ctx, full))
	_, err = c.Put(ctx, "full", "x")
	equal(err, rpctypes.ErrNoSpace)
	equal(len(must(c.AlarmList(ctx)).Alarms), 1)
	equal(len(must(c.AlarmDisarm(ctx, &clientv3.AlarmMember{})).Alarms), 1)
	must(c.Put(ctx, "full", "no more"))

	copied := must(c.SnapshotWithVersion(ctx))
	if g.isNew {
		assert(copied.Version != "", copied)
	}
	// The last 32 bytes are the checksum of those before.
	bytes := must(io.ReadAll(copied.Snapshot))
	sum := sha256.Sum256(bytes[:len(bytes)-sha256.Size])
	equal(bytes[len(bytes)-sha256.Size:], sum[:])
	folder := must(os.MkdirTemp("", "snapshot"))
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "snapshot.db")
	config := clientv3.Config{Endpoints: []string{g.endpoint}, DialTimeout: eventually}
	must(snapshot.SaveWithVersion(ctx, zap.NewNop(), config, file))
	assert(must(os.Stat(file)).Size()%512 == sha256.Size)

	_, err = c.Downgrade(ctx, clientv3.DowngradeCancel, "")
	if g.isNew {
		assert(err == nil, err)
	} else {
		refused(err, "etcdserver: no inflight downgrade job")
	}
	_, err = c.Downgrade(ctx, clientv3.DowngradeValidate, "3.2")
	refused(err, "etcdserver: invalid downgrade target version")
}

// Users, roles, what they may, and tokens that end.
func accounts(g given) {
	c, ctx := g.client, g.ctx
	_, err := c.AuthEnable(ctx)
	equal(err, rpctypes.ErrRootUserNotExist)
	must(c.UserAdd(ctx, "root", "secret"))
	must(c.RoleAdd(ctx, "root"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.RoleAdd(ctx, "gopher"))
	_, err = c.RoleAdd(ctx, "gopher")
	equal(err, rpctypes.ErrRoleAlreadyExist)
	readWrite := clientv3.PermissionType(clientv3.PermReadWrite)
	must(c.RoleGrantPermission(ctx, "gopher", "auth/", "auth0", readWrite))
	must(c.RoleGrantPermission(ctx, "gopher", "read", "", clientv3.PermissionType(clientv3.PermRead)))
	equal(len(must(c.RoleGet(ctx, "gopher")).Perm), 2)
	must(c.UserAdd(ctx, "rob", "old"))
	must(c.UserAddWithOptions(ctx, "certified", "", &clientv3.UserAddOptions{NoPassword: true}))
	must(c.UserGrantRole(ctx, "rob", "gopher"))
	must(c.UserChangePassword(ctx, "rob", "go"))
	equal(must(c.UserGet(ctx, "rob")).Roles, []string{"gopher"})
	equal(must(c.UserList(ctx)).Users, []string{"certified", "rob", "root"})
	equal(must(c.RoleList(ctx)).Roles, []string{"gopher", "root"})
	must(c.AuthEnable(ctx))

	_, err = c.Put(ctx, "auth/a", "1")
	equal(err, rpctypes.ErrUserEmpty)
	_, err = clientv3.New(clientv3.Config{
		Endpoints: []string{g.endpoint}, DialTimeout: eventually, Logger: zap.NewNop(),
		Username: "rob", Password: "old",
	})
	refused(err, "authentication failed, invalid user ID or password")
	root := g.connect(clientv3.Config{Username: "root", Password: "secret"})
	defer root.Close()
	rob := g.connect(clientv3.Config{Username: "rob", Password: "go"})
	defer rob.Close()
	status := must(root.AuthStatus(ctx))
	assert(status.Enabled && status.AuthRevision > 1, status)
	must(rob.Put(ctx, "auth/a", "1"))
	must(rob.Get(ctx, "read"))
	_, err = rob.Put(ctx, "read", "1")
	equal(err, rpctypes.ErrPermissionDenied)
	_, err = rob.Txn(ctx).Then(clientv3.OpPut("auth/a", "2"), clientv3.OpGet("other")).Commit()
	equal(err, rpctypes.ErrPermissionDenied)
	denied := <-rob.Watch(ctx, "other")
	assert(denied.Canceled, denied)
	refused(denied.Err(), "etcdserver: permission denied")
	seen := rob.Watch(ctx, "auth/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-seen
	must(root.Put(ctx, "auth/b", "2"))
	equal(told(seen, 1), []string{"PUT auth/b 2"})
	// The token of before is worth nothing now: the client asks for another one without a word.
	must(root.UserChangePassword(ctx, "rob", "went"))
	must(root.UserChangePassword(ctx, "rob", "go"))
	must(rob.Put(ctx, "auth/a", "3"))
	must(root.RoleRevokePermission(ctx, "gopher", "auth/", "auth0"))
	_, err = rob.Put(ctx, "auth/a", "4")
	equal(err, rpctypes.ErrPermissionDenied)
	must(root.UserRevokeRole(ctx, "rob", "gopher"))
	must(root.UserDelete(ctx, "rob"))
	must(root.RoleDelete(ctx, "gopher"))
	_, err = root.UserDelete(ctx, "rob")
	equal(err, rpctypes.ErrUserNotFound)
	must(root.AuthDisable(ctx))
	must(c.Put(ctx, "auth/a", "5"))
}
