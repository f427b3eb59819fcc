// The operations of the package etcd3 with the server at the address given.

'use strict';

const assert = require('assert');
const { once } = require('events');
const etcd3 = require('etcd3');

const [host, port] = process.argv.slice(2);
const hosts = `http://${host}:${port}`;
const client = new etcd3.Etcd3({ hosts });

// Milliseconds that something may take that must happen.
const EVENTUALLY = 60000;

function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it never happened: ${what}`)), EVENTUALLY);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function eventually(holds, what) {
  for (const end = Date.now() + EVENTUALLY; !(await holds());) {
    assert(Date.now() < end, `it never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function keys() {
  assert.strictEqual(await client.get('js/none').string(), null);
  const { header } = await client.put('js/a').value('1');
  assert(Number(header.revision) > 1);
  assert.strictEqual((await client.put('js/a').value('2').getPrevious()).value.toString(), '1');
  assert.strictEqual(await client.get('js/a').number(), 2);
  assert.strictEqual(await client.get('js/a').revision(header.revision).string(), '1');
  assert.strictEqual(await client.get('js/a').serializable(true).exists(), true);
  const raw = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
  await client.put(Buffer.from('js/b\x00')).value(raw);
  assert.deepStrictEqual(await client.get('js/b\x00').buffer(), raw);
  await client.put('js/c').value('');
  assert.strictEqual(await client.get('js/c').string(), '');
  assert.deepStrictEqual(await client.getAll().prefix('js/').keys(), ['js/a', 'js/b\x00', 'js/c']);
  const down = client.getAll().prefix('js/').sort('Mod', 'Descend').limit(2);
  assert.deepStrictEqual(await down.keys(), ['js/c', 'js/b\x00']);
  const page = await client.getAll().prefix('js/').limit(2).exec();
  assert.deepStrictEqual([page.more, page.count], [true, '3']);
  assert.strictEqual(await client.getAll().inRange({ start: 'js/a', end: 'js/c' }).count(), 2);
  assert.strictEqual(await client.getAll().all().count(), 3);
  const later = client.getAll().prefix('js/').minCreateRevision(Number(header.revision) + 1);
  assert.strictEqual((await later.keys()).length, 2);
  // Touching keeps value and lease.
  await client.put('js/a').touch();
  assert.strictEqual(await client.get('js/a').string(), '2');
  assert.strictEqual((await client.delete().key('js/a').getPrevious())[0].value.toString(), '2');
  assert.strictEqual((await client.delete().prefix('js/')).deleted, '2');
  await assert.rejects(client.put('').value('x'), /key is not provided/);
}

async function transactions() {
  const done = await client
    .if('tx/a', 'Create', '==', 0)
    .and('tx/b', 'Version', '<', 1)
    .then(client.put('tx/a').value('1'), client.get('tx/a'))
    .else(client.get('tx/a'))
    .commit();
  assert.strictEqual(done.succeeded, true);
  assert.strictEqual(done.responses[1].response_range.kvs[0].value.toString(), '1');
  const not = await client
    .if('tx/a', 'Value', '!==', '1')
    .then(client.put('tx/a').value('2'))
    .else(client.delete().key('tx/a'))
    .commit();
  assert.strictEqual(not.succeeded, false);
  assert.strictEqual(not.responses[0].response_delete_range.deleted, '1');
}

// Sums are moved to and fro by several at once; nothing is lost on the way, whatever the isolation.
async function softwareTransactions() {
  await client.put('stm/a').value(100);
  await client.put('stm/b').value(0);
  const move = (isolation) =>
    client.stm({ isolation, retries: 1000, prefetch: ['stm/a'] }).transact(async (tx) => {
      const [a, b] = [await tx.get('stm/a').number(), await tx.get('stm/b').number()];
      await tx.put('stm/a').value(a - 1);
      await tx.put('stm/b').value(b + 1);
      return a + b;
    });
  // Serializable snapshots and serializable.
  const sums = await Promise.all(Array.from({ length: 20 }, (_, at) => move(at % 2)));
  assert(sums.every((sum) => sum === 100), sums.join());
  assert.strictEqual(await client.get('stm/a').number(), 80);
  assert.strictEqual(await client.get('stm/b').number(), 20);
  await client.stm({ isolation: 2 }).transact((tx) => tx.delete().key('stm/a'));
  assert.strictEqual(await client.get('stm/a').exists(), false);
}

async function leases() {
  const lease = client.lease(1000, { autoKeepAlive: false });
  const id = await lease.grant();
  await lease.put('lease/a').value('x');
  const left = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  assert.strictEqual(left.grantedTTL, '1000');
  assert.strictEqual(left.keys[0].toString(), 'lease/a');
  assert.strictEqual((await lease.keepaliveOnce()).TTL, '1000');
  const listed = await client.leaseClient.leaseLeases();
  assert(listed.leases.some((lease) => lease.ID === id));
  await lease.revoke();
  assert.strictEqual(await client.get('lease/a').exists(), false);
  // It keeps itself alive, until the server has lost it; then it says so.
  const alive = client.lease(6);
  await alive.put('lease/b').value('x');
  for (let times = 0; times < 3; times += 1) await soon(once(alive, 'keepaliveSucceeded'), 'alive');
  const lost = once(alive, 'lost');
  await client.leaseClient.leaseRevoke({ ID: await alive.grant() });
  await soon(lost, 'lost');
  const short = client.lease(1, { autoKeepAlive: false });
  await short.put('lease/c').value('x');
  await eventually(async () => !(await client.get('lease/c').exists()), 'the end of a lease');
}

async function watches() {
  const { header } = await client.put('w/a').value('1');
  await client.put('w/b').value('2');
  await client.delete().key('w/a');
  const seen = [];
  const watcher = await client
    .watch()
    .prefix('w/')
    .startRevision(header.revision)
    .withPreviousKV()
    .create();
  watcher.on('put', (kv) => seen.push(`${kv.key}=${kv.value}`));
  watcher.on('delete', (kv, before) => seen.push(`${kv.key} was ${before.value}`));
  await eventually(() => seen.length === 3, `the past: ${seen}`);
  assert.deepStrictEqual(seen, ['w/a=1', 'w/b=2', 'w/a was 1']);
  const more = Array.from({ length: 200 }, (_, at) => `w/${String(at).padStart(3, '0')}`);
  await Promise.all(more.map((key) => client.put(key).value('x')));
  await eventually(() => seen.length === 203, `everything: ${seen.length}`);
  assert.deepStrictEqual(seen.slice(3).sort(), more.map((key) => `${key}=x`));
  await watcher.cancel();
  // Several on one stream, each with its own.
  const none = await client.watch().key('w/x').only('delete').create();
  const some = await client.watch().key('w/x').create();
  const [removal, writing] = [once(none, 'delete'), once(some, 'put')];
  none.on('put', () => assert.fail('it is filtered'));
  await client.put('w/x').value('1');
  await client.delete().key('w/x');
  assert.strictEqual((await soon(writing, 'writing'))[0].value.toString(), '1');
  assert.strictEqual((await soon(removal, 'removal'))[0].key.toString(), 'w/x');
  await none.cancel();
  await some.cancel();
}

async function namespaces() {
  const own = client.namespace('tenant/').namespace('one/');
  await own.put('a').value('1');
  assert.strictEqual(await client.get('tenant/one/a').string(), '1');
  assert.deepStrictEqual(await own.getAll().all().keys(), ['a']);
  const watcher = await own.watch().prefix('').create();
  const told = once(watcher, 'put');
  await client.put('tenant/two/b').value('not its own');
  await client.put('tenant/one/b').value('2');
  assert.strictEqual((await soon(told, 'its own'))[0].key.toString(), 'b');
  await watcher.cancel();
  const done = await own.if('a', 'Value', '==', '1').then(own.put('c').value('3')).commit();
  assert(done.succeeded);
  assert.strictEqual((await own.delete().all()).deleted, '3');
  assert.strictEqual(await client.get('tenant/two/b').exists(), true);
}

async function locks() {
  const lock = client.lock('job').ttl(60);
  await lock.acquire();
  assert(await lock.leaseId());
  await assert.rejects(client.lock('job').acquire(), etcd3.EtcdLockFailedError);
  await lock.release();
  assert.strictEqual(await client.lock('job').do(() => 'done'), 'done');
}

async function elections() {
  const election = client.election('mayor', 60);
  const first = election.campaign('one');
  await soon(once(first, 'elected'), 'the first');
  assert.strictEqual(await election.leader(), 'one');
  const observer = await election.observe();
  const second = election.campaign('two');
  second.on('error', (error) => assert.ifError(error));
  await first.proclaim('still one');
  await eventually(() => observer.leader() === 'still one', 'what is proclaimed');
  const elected = once(second, 'elected');
  await first.resign();
  await soon(elected, 'the second');
  await eventually(() => observer.leader() === 'two', 'whom all see');
  await second.resign();
  await eventually(() => observer.leader() === undefined, 'nobody');
  await observer.cancel();
}

async function cluster() {
  const { members } = await client.cluster.memberList({});
  assert.strictEqual(members.length, 1);
  const status = await client.maintenance.status();
  assert.strictEqual(status.leader, members[0].ID);
  assert((await client.maintenance.hash()).hash !== 0);
  assert.deepStrictEqual((await client.maintenance.alarm({ action: 'Get' })).alarms, []);
  const { header } = await client.put('full').value('no');
  await client.kv.compact({ revision: header.revision, physical: true });
  await assert.rejects(client.get('full').revision(1).string(), /has been compacted/);
  await client.maintenance.defragment();
  const stream = await client.maintenance.snapshot();
  let length = 0;
  stream.on('data', ({ blob }) => { length += blob.length; });
  await soon(once(stream, 'end'), 'the end of a snapshot');
  assert.strictEqual(length % 512, 32);
}

async function accounts() {
  const root = client.user('root');
  await root.create('secret');
  await client.role('root').create();
  await root.addRole('root');
  const role = client.role('reader');
  await role.create();
  await role.grant([
    { permission: 'Read', range: client.range({ prefix: 'auth/' }) },
    { permission: 'Write', key: 'auth/own' },
  ]);
  assert.strictEqual((await role.permissions()).length, 2);
  await role.revoke({ permission: 'Write', key: 'auth/own' });
  assert.deepStrictEqual((await role.permissions()).map((one) => one.permission), ['Read']);
  await assert.rejects(role.create(), etcd3.EtcdRoleExistsError);
  const user = await client.user('brendan').create('old');
  await user.setPassword('javascript');
  await user.addRole(role);
  assert.deepStrictEqual((await user.roles()).map((one) => one.name), ['reader']);
  assert.strictEqual((await client.getUsers()).length, 2);
  assert.strictEqual((await client.getRoles()).length, 2);
  await assert.rejects(client.user('nobody').roles(), etcd3.EtcdUserNotFoundError);
  await client.auth.authEnable();
  const as = (username, password) => new etcd3.Etcd3({ hosts, auth: { username, password } });
  const [wrong, reader, all] = [as('brendan', 'old'), as('brendan', 'javascript'), as('root', 'secret')];
  await assert.rejects(wrong.get('auth/a').string(), etcd3.EtcdAuthenticationFailedError);
  await all.put('auth/a').value('1');
  assert.strictEqual(await reader.get('auth/a').string(), '1');
  await assert.rejects(reader.put('auth/a').value('2').exec(), etcd3.EtcdPermissionDeniedError);
  const watcher = await reader.watch().prefix('auth/').create();
  const told = once(watcher, 'put');
  await all.put('auth/b').value('2');
  assert.strictEqual((await soon(told, 'a watch of a user'))[0].value.toString(), '2');
  await watcher.cancel();
  // A new password ends tokens; the library asks for another one by itself.
  await all.user('brendan').setPassword('new');
  await all.user('brendan').setPassword('javascript');
  assert.strictEqual(await reader.get('auth/a').string(), '1');
  await all.auth.authDisable();
  for (const each of [wrong, reader, all]) each.close();
}

async function main() {
  const steps = [keys, transactions, softwareTransactions, leases, watches, namespaces, locks];
  for (const step of [...steps, elections, cluster, accounts]) {
    try {
      await step();
    } catch (error) {
      console.error(`${step.name} does not work`);
      throw error;
    }
  }
  client.close();
  console.log('etcd3 of npm works');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
