//! The network between members, and between clients and members: TCP proxies in this process.
//!
//! Every member advertises a proxy's address and listens elsewhere. For each connection the proxy
//! finds out which member dialed ([`super::owner`]), so every ordered pair of members is a link of
//! its own: bytes from one to the other, whoever opened the connection. A link that is cut holds
//! what it got and takes nothing more, as a network that loses packets looks to TCP; behind it
//! nothing is lost when it heals, unless the connections are reset.
//!
//! The proxies live on a runtime of their own, so that a test that blocks does not stop them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::owner::owner;
use super::process::chance;

/// Who sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A member, by its number in the cluster.
    Member(usize),
    /// All clients together.
    Clients,
}

/// What a link does to the bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Nothing gets through.
    pub is_cut: bool,
    /// Every piece waits between as long and as long.
    pub delay: (Duration, Duration),
    /// At most as many bytes a second on each connection.
    pub bytes_per_second: Option<u64>,
    /// Each connection stops for good behind as many bytes.
    pub stall_after_bytes: Option<u64>,
    /// Connections that were opened while the number was another are reset.
    generation: u64,
}

/// Bytes that are read at once.
const PIECE_BYTES: usize = 32 * 1024;

/// Before accepting is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pieces on their way on one connection.
const PIECES_MAX: usize = 64;

#[derive(Debug)]
struct State {
    links: watch::Sender<BTreeMap<(Node, Node), Link>>,
    /// The process of each running member.
    processes: Mutex<BTreeMap<u32, usize>>,
}

/// The proxies of a cluster.
#[derive(Debug)]
pub struct Network {
    state: Arc<State>,
    runtime: Option<Runtime>,
}

impl Network {
    /// A network without members.
    ///
    /// # Errors
    ///
    /// The system has no threads left.
    pub fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("a runtime for the proxies")?;
        let (links, _) = watch::channel(BTreeMap::new());
        let state = Arc::new(State { links, processes: Mutex::default() });
        Ok(Self { state, runtime: Some(runtime) })
    }

    /// Opens a way to a member's port; the address to advertise. `from` is `None` where members
    /// dial.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub fn open(&self, from: Option<Node>, to: usize, port: u16) -> anyhow::Result<SocketAddr> {
        let listener = ports::listener()?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::clone(&self.state);
        let runtime = self.runtime.as_ref().context("the network is up")?;
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            loop {
                let (accepted, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    // A connection that is gone already, or no descriptor left for it: a proxy
                    // that ended here would cut its member off for good.
                    Err(error) => {
                        println!("a proxy of m{to} cannot accept: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    // Nobody listens: then it does not matter who asks, and members ask often.
                    let Ok(dialed) = TcpStream::connect(target).await else { return };
                    let found = match from {
                        Some(from) => Some(from),
                        None => state.dialer(peer, address).await,
                    };
                    if let Some(from) = found {
                        state.connect(accepted, dialed, (from, Node::Member(to))).await;
                    }
                });
            }
        });
        Ok(address)
    }

    /// Says which process a member is now.
    pub(crate) fn set_process(&self, member: usize, process: u32) {
        let mut processes = self.state.processes();
        processes.retain(|_, other| *other != member);
        processes.insert(process, member);
    }

    /// Changes what one link does.
    pub fn change(&self, from: Node, to: Node, change: impl FnOnce(&mut Link)) {
        self.state.links.send_modify(|links| change(links.entry((from, to)).or_default()));
    }

    /// Lets nothing through from one to the other.
    pub fn cut(&self, from: Node, to: Node) {
        self.change(from, to, |link| link.is_cut = true);
    }

    /// Undoes every change of every link.
    pub fn heal(&self) {
        self.state.links.send_modify(|links| {
            for link in links.values_mut() {
                *link = Link { generation: link.generation, ..Link::default() };
            }
        });
    }

    /// Closes all connections of a link.
    pub fn reset(&self, from: Node, to: Node) {
        self.change(from, to, |link| link.generation += 1);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    fn processes(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member that opened a connection. The kernel takes milliseconds to say so.
    async fn dialer(&self, peer: SocketAddr, proxy: SocketAddr) -> Option<Node> {
        let known: Vec<u32> = self.processes().keys().copied().collect();
        let looked = tokio::task::spawn_blocking(move || owner(peer, proxy, &known));
        let process = looked.await.ok()??;
        self.processes().get(&process).map(|member| Node::Member(*member))
    }

    async fn connect(
        self: Arc<Self>,
        accepted: TcpStream,
        dialed: TcpStream,
        (from, to): (Node, Node),
    ) {
        // A dial does not get through a cut either.
        let mut links = self.links.subscribe();
        if await_open(&mut links, (from, to)).await.is_none() {
            return;
        }
        // Only a hint to the kernel.
        accepted.set_nodelay(true).ok();
        dialed.set_nodelay(true).ok();
        let (client_read, client_write) = accepted.into_split();
        let (server_read, server_write) = dialed.into_split();
        let forth = self.carry((from, to), client_read, server_write);
        let back = self.carry((to, from), server_read, client_write);
        tokio::select! {
            () = async { tokio::join!(forth, back); } => {}
            () = self.await_reset((from, to)) => {}
            () = self.await_reset((to, from)) => {}
        }
    }

    async fn await_reset(&self, link: (Node, Node)) {
        let mut links = self.links.subscribe();
        let generation =
            |links: &BTreeMap<_, Link>| links.get(&link).map_or(0, |link| link.generation);
        let begin = generation(&links.borrow());
        // Ends with an error only when the network does.
        links.wait_for(|links| generation(links) != begin).await.ok();
    }

    /// Carries bytes one way until the end of the stream.
    async fn carry(&self, link: (Node, Node), mut from: OwnedReadHalf, to: OwnedWriteHalf) {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let writer = deliver(self.links.subscribe(), link, receiver, to);
        let links = self.links.subscribe();
        let reader = async move {
            let mut due = Instant::now();
            let mut random = SmallRng::seed_from_u64(chance());
            loop {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                match from.read_buf(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                let delay = links
                    .borrow()
                    .get(&link)
                    .map_or((Duration::ZERO, Duration::ZERO), |link| link.delay);
                due = due.max(Instant::now() + between(delay, &mut random));
                if sender.send((due, piece)).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(reader, writer);
    }
}

fn between((least, most): (Duration, Duration), random: &mut SmallRng) -> Duration {
    if most <= least {
        return least;
    }
    least + (most - least).mul_f64(random.random())
}

/// Waits while a link is cut; its state. `None` when the network is gone.
async fn await_open(
    links: &mut watch::Receiver<BTreeMap<(Node, Node), Link>>,
    link: (Node, Node),
) -> Option<Link> {
    let open = links.wait_for(|links| !links.get(&link).is_some_and(|link| link.is_cut)).await;
    open.ok().map(|links| links.get(&link).copied().unwrap_or_default())
}

/// Writes what was read, as late and as slowly as the link says; then the end of the stream.
async fn deliver(
    mut links: watch::Receiver<BTreeMap<(Node, Node), Link>>,
    link: (Node, Node),
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
) {
    let mut delivered = 0_u64;
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        let Some(mut now) = await_open(&mut links, link).await else { return };
        while now.stall_after_bytes.is_some_and(|most| most <= delivered) {
            if links.changed().await.is_err() {
                return;
            }
            let Some(open) = await_open(&mut links, link).await else { return };
            now = open;
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
        let bytes = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        delivered += bytes;
        if let Some(speed) = now.bytes_per_second {
            let nanoseconds = bytes.saturating_mul(1_000_000_000) / speed.max(1);
            tokio::time::sleep(Duration::from_nanos(nanoseconds)).await;
        }
    }
    if await_open(&mut links, link).await.is_some() {
        // The other side may be gone already.
        to.shutdown().await.ok();
    }
}
