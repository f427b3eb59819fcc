//! Keys as clients of this proxy know them: the namespace and the order of reads, then a member.

use std::sync::Arc;

use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::upstream::{Policy, Upstream};

use super::order::Turns;
use super::{Namespace, Order};

/// The keys.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    upstream: Upstream,
    namespace: Namespace,
    order: Option<Arc<Order>>,
}

impl Store {
    pub(crate) fn new(upstream: Upstream, namespace: Namespace, is_ordered: bool) -> Self {
        let order = is_ordered.then(Arc::<Order>::default);
        Self { upstream, namespace, order }
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether an answer of before is not too old for today.
    pub(crate) fn may_answer(&self, answer: &RangeResponse) -> bool {
        let revision = revision(answer.header.as_ref());
        self.order.as_ref().is_none_or(|order| order.now() <= revision)
    }

    fn stub(&self, channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(self.upstream.response_bytes_max())
    }

    pub(crate) async fn range(
        &self,
        caller: &Caller,
        mut request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        self.namespace.check_key(&request.key)?;
        self.namespace.enter(&mut request.key, &mut request.range_end);
        let mut turns = self.turns();
        let mut answer = loop {
            let read = self.upstream.unary(
                caller,
                Policy::Read,
                request.clone(),
                async |channel, request| self.stub(channel).range(request).await,
            );
            let answer = read.await?;
            if self.is_in_order(&mut turns, answer.header.as_ref())? {
                break answer;
            }
        };
        self.namespace.leave_range(&mut answer);
        Ok(answer)
    }

    /// For a read that begins now.
    fn turns(&self) -> Turns {
        match &self.order {
            Some(order) => order.turns(self.upstream.client().endpoints().count()),
            None => Turns::default(),
        }
    }

    /// Whether an answer is not older than what was answered before; if not, another member is
    /// asked next.
    ///
    /// # Errors
    ///
    /// No member is as far.
    fn is_in_order(
        &self,
        turns: &mut Turns,
        header: Option<&ResponseHeader>,
    ) -> Result<bool, Status> {
        let Some(order) = &self.order else { return Ok(true) };
        let accepted = order.accept(turns, revision(header))?;
        if !accepted {
            let client = self.upstream.client();
            client.leave(&client.connection());
        }
        Ok(accepted)
    }

    pub(crate) async fn put(
        &self,
        caller: &Caller,
        mut request: PutRequest,
    ) -> Result<PutResponse, Status> {
        self.namespace.check_key(&request.key)?;
        self.namespace.enter(&mut request.key, &mut bytes::Bytes::new());
        let put = self.upstream.unary(caller, Policy::Write, request, async |channel, request| {
            self.stub(channel).put(request).await
        });
        let mut answer = put.await?;
        self.namespace.leave_put(&mut answer);
        Ok(answer)
    }

    pub(crate) async fn delete_range(
        &self,
        caller: &Caller,
        mut request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        self.namespace.check_key(&request.key)?;
        self.namespace.enter(&mut request.key, &mut request.range_end);
        let delete =
            self.upstream.unary(caller, Policy::Write, request, async |channel, request| {
                self.stub(channel).delete_range(request).await
            });
        let mut answer = delete.await?;
        self.namespace.leave_delete(&mut answer);
        Ok(answer)
    }

    pub(crate) async fn txn(
        &self,
        caller: &Caller,
        mut request: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        self.namespace.enter_txn(&mut request);
        let mut written = Vec::new();
        super::writes(&request, &mut written);
        let policy = if written.is_empty() { Policy::Read } else { Policy::Write };
        let mut turns = self.turns();
        let mut answer = loop {
            let txn =
                self.upstream.unary(caller, policy, request.clone(), async |channel, request| {
                    self.stub(channel).txn(request).await
                });
            let answer = txn.await?;
            // What is written is in order by itself, and must not be written again.
            let is_fine = self.is_in_order(&mut turns, answer.header.as_ref());
            if policy == Policy::Write || is_fine? {
                break answer;
            }
        };
        self.namespace.leave_txn(&mut answer);
        Ok(answer)
    }

    pub(crate) async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        let compact =
            self.upstream.unary(caller, Policy::Write, request, async |channel, request| {
                self.stub(channel).compact(request).await
            });
        compact.await
    }
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
