//! The end of a test: everything heals, all members come to hold the same, the judges decide.

use std::fs::File;
use std::io::BufWriter;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use client::{Client, Options};
use history::{Final, History, Report, judge};
use proto::etcdserverpb as pb;

use super::load::Load;
use super::{Cluster, PATIENCE, POLL};

/// What the judges found nothing wrong with.
#[derive(Debug)]
pub struct Verdict {
    /// What it held.
    pub report: Report,
    /// It.
    pub history: History,
}

impl Cluster {
    /// Heals the network, continues and starts every member that belongs to the cluster, stops the
    /// clients, waits until all members and watches have everything, and judges.
    ///
    /// # Errors
    ///
    /// Something does not come back in time, or the judges found a violation; then the history is
    /// kept in a file that the text names.
    pub async fn finish(&mut self, mut load: Load) -> anyhow::Result<Verdict> {
        self.recover().await?;
        load.stop_clients().await;
        let revision = self.last_put(&load).await?;
        for member in self.finals(revision).await? {
            load.recorder.record_final(member);
        }
        self.await_watches(&mut load, revision).await?;
        let history = load.recorder.snapshot();
        match judge(&history) {
            Ok(report) => Ok(Verdict { report, history }),
            Err(violations) => {
                let stories: Vec<String> =
                    violations.iter().take(8).map(|found| found.story(&history)).collect();
                let path = keep(&history)?;
                bail!(
                    "{} violations; the history is in {path}\n{}\n{}",
                    violations.len(),
                    stories.join("\n"),
                    self.logs()
                )
            }
        }
    }

    /// Undoes every fault, and waits until every member serves.
    ///
    /// # Errors
    ///
    /// One does not come back.
    pub async fn recover(&mut self) -> anyhow::Result<()> {
        self.network().heal();
        let belong: Vec<usize> =
            (0..self.members().len()).filter(|number| !self.member(*number).is_removed).collect();
        for number in &belong {
            if self.member(*number).is_up() {
                self.resume(*number)?;
            } else {
                self.restart(*number)?;
            }
        }
        for number in belong {
            self.await_serving(number).await?;
        }
        Ok(())
    }

    /// The last change, of a key that every watch watches.
    async fn last_put(&self, load: &Load) -> anyhow::Result<i64> {
        let mut client = load.client(self, None).await?;
        let began = Instant::now();
        loop {
            if let Some(revision) = client.put("key1, the end", "of all").await {
                return Ok(revision);
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "no last write:\n{}", self.logs());
        }
    }

    /// Waits until every member has a revision and all have the same compaction.
    pub(super) async fn finals(&self, revision: i64) -> anyhow::Result<Vec<Final>> {
        let began = Instant::now();
        loop {
            let mut members = Vec::new();
            let mut problem = String::new();
            for number in self.up() {
                match self.state_at(number, revision).await {
                    Ok(state) => members.push(state),
                    Err(error) => problem = format!("m{number}: {error:#}"),
                }
            }
            let first = members.first().map(|member| member.compact_revision);
            let agree = members.iter().all(|member| Some(member.compact_revision) == first);
            let is_late = PATIENCE < began.elapsed();
            if problem.is_empty() && (agree || is_late) {
                return Ok(members);
            }
            if is_late {
                bail!("no state at revision {revision}: {problem}\n{}", self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A member's hash and pairs at a revision.
    async fn state_at(&self, number: usize, revision: i64) -> anyhow::Result<Final> {
        let options = Options::new(vec![self.member(number).direct_endpoint()])
            .with_command_timeout(Some(Duration::from_secs(5)));
        let client = Client::connect(options).await?;
        let everything = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            revision,
            serializable: true,
            ..Default::default()
        };
        let pairs = client.get(everything).await?.kvs;
        let hash = client.hash_kv(pb::HashKvRequest { revision }).await?;
        Ok(Final {
            member: u64::try_from(number)?,
            revision,
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            pairs: Some(pairs),
        })
    }

    async fn await_watches(&self, load: &mut Load, revision: i64) -> anyhow::Result<()> {
        let began = Instant::now();
        let up = self.up();
        for watcher in std::mem::take(&mut load.watchers) {
            if !up.contains(&watcher.member) {
                watcher.abort();
                continue;
            }
            // One from the future may begin behind the end.
            while watcher.next() <= revision {
                if PATIENCE < began.elapsed() {
                    bail!(
                        "a watch of m{} stays at {} of {revision}; it broke off last by {:?}\n{}",
                        watcher.member,
                        watcher.next(),
                        watcher.trouble(),
                        self.logs()
                    );
                }
                tokio::time::sleep(POLL).await;
            }
            watcher.finish(revision);
        }
        Ok(())
    }
}

/// Writes a history where it survives the test; the path.
fn keep(history: &History) -> anyhow::Result<String> {
    let file = tempfile::Builder::new().prefix("history-").suffix(".jsonl").tempfile()?;
    let (file, path) = file.keep()?;
    let mut writer = BufWriter::new(file);
    history::write(history, &mut writer).context("keeping the history")?;
    let file: File = writer.into_inner()?;
    file.sync_all()?;
    Ok(path.display().to_string())
}
