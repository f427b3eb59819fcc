// The operations of node-etcd with the server at the address given.

'use strict';

const assert = require('assert');
const Etcd = require('node-etcd');

const [host, port] = process.argv.slice(2);
const etcd = new Etcd(`http://${host}:${port}`, { maxRetries: 3, timeout: 60000 });

// A call of the library as a promise of its error and body.
function call(name, ...given) {
  return new Promise((resolve) => {
    etcd[name](...given, (error, body, headers) => resolve({ error, body, headers }));
  });
}

async function works(name, ...given) {
  const { error, body } = await call(name, ...given);
  assert.ifError(error);
  return body;
}

async function refused(code, name, ...given) {
  const { error } = await call(name, ...given);
  assert.strictEqual(error && error.errorCode, code, `${name} ${given}`);
}

async function keys() {
  assert.strictEqual((await works('set', 'js/a', '1')).action, 'set');
  assert.strictEqual((await works('get', 'js/a')).node.value, '1');
  assert.strictEqual((await works('compareAndSwap', 'js/a', '2', '1')).action, 'compareAndSwap');
  await refused(101, 'compareAndSwap', 'js/a', '3', '1');
  await refused(100, 'get', 'js/none');
  await works('mkdir', 'js/dir');
  await refused(105, 'set', 'js/a', 'x', { prevExist: false });
  const first = await works('create', 'js/dir', 'one');
  const second = await works('create', 'js/dir', 'two');
  assert(first.node.key < second.node.key);
  const tree = await works('get', 'js', { recursive: true, sorted: true });
  assert.deepStrictEqual(tree.node.nodes.map((node) => node.key), ['/js/a', '/js/dir']);
  await refused(108, 'rmdir', 'js/dir');
  assert.strictEqual((await works('rmdir', 'js/dir', { recursive: true })).action, 'delete');
  assert.strictEqual((await works('compareAndDelete', 'js/a', '2')).action, 'compareAndDelete');
  const raw = await works('raw', 'GET', 'v2/stats/store', null, {});
  assert(raw.setsSuccess > 0);
  assert.strictEqual(etcd.getSync('js/none').err.errorCode, 100);
}

async function watches() {
  const { node } = await works('set', 'js/w', '0');
  const told = works('watch', 'js/w');
  // When it waits nobody says; it is told of whatever comes after that.
  const writing = setInterval(() => etcd.set('js/w', 'next', () => {}), 100);
  assert.strictEqual((await told).node.value, 'next');
  clearInterval(writing);
  assert.strictEqual((await works('watchIndex', 'js/w', node.modifiedIndex)).node.value, '0');
  const watcher = etcd.watcher('js/w', node.modifiedIndex);
  const seen = [];
  await new Promise((resolve, reject) => {
    watcher.on('error', reject);
    watcher.on('change', (event) => {
      seen.push(event.node.value);
      if (seen.length === 2) resolve();
    });
  });
  watcher.stop();
  assert.deepStrictEqual(seen, ['0', 'next']);
}

async function times() {
  assert((await works('set', 'js/t', 'x', { ttl: 1000 })).node.ttl > 0);
  await works('set', 'js/u', 'x', { ttl: 1 });
  for (let left = 600; (await call('get', 'js/u')).error === null; left -= 1) {
    assert(left > 0, 'it never ends');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function cluster() {
  assert.strictEqual((await works('selfStats')).state, 'StateLeader');
  assert.deepStrictEqual((await works('leaderStats')).followers, {});
}

async function main() {
  await keys();
  await watches();
  await times();
  await cluster();
  console.log('node-etcd works');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
