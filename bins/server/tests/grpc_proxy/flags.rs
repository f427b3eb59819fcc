//! What single flags do.

use std::io::Read as _;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use proto::etcdserverpb as pb;
use retcd_conformance::ask;
use retcd_conformance::frames::{Frame, Frames, GO_AWAY, PING, SETTINGS};

use super::{Proxy, eventually, get, put, serve};

/// SRV-176: the number is told in the first settings of a connection.
#[test]
fn a_connection_may_have_so_many_streams() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--max-concurrent-streams", "77"];
    let proxy = Proxy::before(folder.path(), "127.0.0.1:1", &flags)?;
    let mut frames = Frames::open(proxy.address())?;
    let first = frames.next_question()?.context("a connection begins with settings")?;
    assert_eq!(first.kind, SETTINGS);
    let streams = first.payload.chunks_exact(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.map(|setting| &setting[2..]), Some(&[0, 0, 0, 77][..]));
    Ok(())
}

/// SRV-176: an idle client is asked whether it lives, and sent away if it does not say so.
#[test]
fn an_idle_client_is_asked_whether_it_lives() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--grpc-keepalive-interval", "1s", "--grpc-keepalive-timeout", "1s"];
    let proxy = Proxy::before(folder.path(), "127.0.0.1:1", &flags)?;
    let mut frames = Frames::open(proxy.address())?;
    let mut pings = 0;
    while let Some(frame) = frames.next_question()? {
        pings += usize::from(frame.kind == PING);
    }
    assert!(pings > 0, "the connection ended without a question");
    Ok(())
}

/// SRV-176: who pings more often than the flag allows is sent away.
#[test]
fn clients_may_ping_as_the_flag_says() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (interval_min, is_sent_away) in [("1h", true), ("1ms", false)] {
        let flags = ["--grpc-keepalive-min-time", interval_min];
        let proxy = Proxy::before(folder.path(), "127.0.0.1:1", &flags)?;
        let mut frames = Frames::open(proxy.address())?;
        frames.open_watch()?;
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(20));
            // Who is sent away may hear that only when it reads.
            let _gone = frames.ping();
        }
        let mut farewell = None;
        if is_sent_away {
            while let Some(frame) = frames.next_question()? {
                farewell = (frame.kind == GO_AWAY).then_some(frame.payload).or(farewell);
            }
            let farewell = farewell.context("a farewell")?;
            assert!(farewell.ends_with(b"too_many_pings"), "{farewell:?}");
        } else {
            // It is still answered.
            frames.send(SETTINGS, 0, 0, b"")?;
            assert!(frames.next_question()?.is_some_and(|frame| frame.kind != GO_AWAY));
        }
    }
    Ok(())
}

/// A member that accepts connections and answers nothing.
struct Silent(TcpListener);

impl Silent {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(ports::listener()?))
    }

    fn address(&self) -> anyhow::Result<String> {
        Ok(self.0.local_addr()?.to_string())
    }

    /// The next connection.
    fn accept(&self) -> anyhow::Result<Frames> {
        Frames::serve(self.0.accept()?.0)
    }
}

/// SRV-177: a member that says nothing is asked whether it lives, also without calls if the flag
/// says so, and left when it does not answer in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_asked_whether_it_lives() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut proxies, mut connections) = (Vec::new(), Vec::new());
    for timeout in ["1s", "1h"] {
        let member = Silent::new()?;
        let flags = ["--dial-keepalive-time", "10s", "--permit-without-stream"];
        let flags = [&flags[..], &["--dial-keepalive-timeout", timeout]].concat();
        let proxy = Proxy::before(folder.path(), &member.address()?, &flags)?;
        let accepting = thread::spawn(move || member.accept());
        give_up(&proxy).await?;
        connections.push(accepting.join().expect("it does not panic")?);
        proxies.push(proxy);
    }
    // From here on the connections have no call.
    let [hasty, patient] = &mut connections[..] else { unreachable!("there are two") };
    for frames in [&mut *hasty, &mut *patient] {
        let is_asked = |frame: Option<Frame>| frame.map(|frame| frame.kind == PING);
        while !is_asked(frames.next_question()?)
            .context("the connection ended without a question")?
        {}
    }
    while hasty.next_question()?.is_some() {}
    ensure!(patient.lasts(Duration::from_secs(3), |_| true)?, "it was left too early");
    Ok(())
}

/// Makes a call that is not answered until the client gives up.
async fn give_up(proxy: &Proxy) -> anyhow::Result<()> {
    let client = proxy.client().await?.with_command_timeout(Some(Duration::from_millis(500)));
    assert!(client.get(get("k")).await.is_err());
    Ok(())
}

/// SRV-177: a connection without calls is not asked, and none is without the flag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_without_the_flags() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let asked = ["--dial-keepalive-time", "10s", "--dial-keepalive-timeout", "1s"];
    let (mut proxies, mut lasting) = (Vec::new(), Vec::new());
    for flags in [&asked[..], &[]] {
        let member = Silent::new()?;
        let proxy = Proxy::before(folder.path(), &member.address()?, flags)?;
        // A question would come after ten seconds.
        let time = Duration::from_secs(15);
        lasting
            .push(thread::spawn(move || member.accept()?.lasts(time, |frame| frame.kind != PING)));
        give_up(&proxy).await?;
        proxies.push(proxy);
    }
    for lasting in lasting {
        assert!(lasting.join().expect("it does not panic")?);
    }
    Ok(())
}

/// SRV-177: what is larger than the flags say passes in neither direction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_have_limits() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let wide = Proxy::start(folder.path(), &server, &[])?;
    let flags = ["--max-send-bytes", "1000", "--max-recv-bytes", "2000"];
    let narrow = Proxy::start(folder.path(), &server, &flags)?;
    let (wide, narrow) = (wide.client().await?, narrow.client().await?);
    wide.put(put("large", &"x".repeat(3000))).await?;
    let error = narrow.put(put("k", &"x".repeat(1200))).await.unwrap_err().to_string();
    assert!(error.contains("trying to send message larger than max (12"), "{error}");
    assert!(error.contains(" vs. 1000)"), "{error}");
    let error = narrow.get(get("large")).await.unwrap_err().to_string();
    assert!(error.contains("larger than max") || error.contains("too large"), "{error}");
    narrow.put(put("k", "small")).await?;
    assert_eq!(narrow.get(get("k")).await?.kvs[0].value, "small");
    // Calls that are passed on, too.
    let name = "u".repeat(1200);
    let error = narrow.user_get(pb::AuthUserGetRequest { name }).await.unwrap_err().to_string();
    assert!(error.contains(" vs. 1000)"), "{error}");
    for number in 0..30 {
        let name = format!("{number}{}", "n".repeat(100));
        let user = pb::AuthUserAddRequest { name, password: "p".into(), ..Default::default() };
        wide.user_add(user).await?;
    }
    let error = narrow.user_list(pb::AuthUserListRequest {}).await.unwrap_err().to_string();
    assert!(error.contains("received message larger than max"), "{error}");
    assert_eq!(wide.user_list(pb::AuthUserListRequest {}).await?.users.len(), 30);
    Ok(())
}

/// SRV-176, SRV-179: what the log tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_what_is_asked_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let quiet = Proxy::start(folder.path(), &server, &[])?;
    let flags = ["--debug", "--experimental-enable-grpc-logging"];
    let talking = Proxy::start(folder.path(), &server, &flags)?;
    for proxy in [&quiet, &talking] {
        proxy.client().await?.put(put("k", "v")).await?;
        // Nobody who speaks TLS is understood here.
        let mut stream = std::net::TcpStream::connect(proxy.address())?;
        std::io::Write::write_all(&mut stream, &[22; 30])?;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
    }
    let is_debug = |line: &str| line.contains("\"level\":\"debug\"");
    let is_call = |line: &str| {
        line.contains("\"finished call\"")
            && line.contains("\"grpc.service\":\"etcdserverpb.KV\"")
            && line.contains("\"grpc.method\":\"Put\"")
            && line.contains("\"grpc.code\":\"OK\"")
    };
    eventually(async || {
        let log = talking.log();
        Ok(log.lines().any(is_debug) && log.lines().any(is_call))
    })
    .await?;
    let log = quiet.log();
    assert!(!log.lines().any(|line| is_debug(line) || is_call(line)), "{log}");
    Ok(())
}

/// SRV-176: profiles on the port of the clients, if they are asked for.
#[test]
fn profiles_are_offered_if_asked_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let proxy = Proxy::before(folder.path(), "127.0.0.1:1", &[])?;
    assert_eq!(ask(proxy.address(), "GET", "/debug/pprof/", "")?.status, 404);
    let metrics_port = ports::free()?;
    let url = format!("http://127.0.0.1:{metrics_port}");
    let flags = ["--enable-pprof", "--metrics-addr", &url];
    let proxy = Proxy::before(folder.path(), "127.0.0.1:1", &flags)?;
    let index = ask(proxy.address(), "GET", "/debug/pprof/", "")?;
    assert!(index.status == 200 && index.body.contains("href=\"heap\""), "{index:?}");
    let line = ask(proxy.address(), "GET", "/debug/pprof/cmdline", "")?.body;
    assert!(line.contains("grpc-proxy\0start\0"), "{line:?}");
    let threads = ask(proxy.address(), "GET", "/debug/pprof/goroutine?debug=1", "")?.body;
    assert!(threads.starts_with("goroutine profile: total "), "{threads}");
    let told = "\"msg\":\"gRPC proxy enabled pprof\",\"path\":\"/debug/pprof\"";
    assert!(proxy.log().contains(told), "{}", proxy.log());
    let other = ([127, 0, 0, 1], metrics_port).into();
    assert_eq!(ask(other, "GET", "/debug/pprof/", "")?.status, 404);
    Ok(())
}

/// Without members there is nothing to wait for at the start: etcd's proxy serves, too.
#[test]
fn a_proxy_without_members_starts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let proxy = Proxy::before(folder.path(), "127.0.0.1:1", &[])?;
    assert_eq!(ask(proxy.address(), "GET", "/health", "")?.status, 503);
    assert_eq!(ask(proxy.address(), "GET", "/metrics", "")?.status, 500);
    Ok(())
}
