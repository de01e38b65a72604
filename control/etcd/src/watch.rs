//! One watch: a stream of its own, so that a slow reader holds nobody else up.

use crate::pin::Pin;
use crate::v3::watch_client::WatchClient;
use crate::v3::watch_request::RequestUnion;
use crate::v3::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// An open watch.
pub struct WatchStream {
    /// Closing it would end the watch.
    _requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    pub(crate) turn: usize,
    pin: Pin,
}

impl WatchStream {
    pub(crate) async fn open(channel: Channel, create: WatchCreateRequest) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).map_err(|e| Status::internal(e.to_string()))?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let responses = client.watch(with_leader(ReceiverStream::new(receiver))).await?.into_inner();
        Ok(Self { _requests: requests, responses, turn: 0, pin: Pin(None) })
    }

    pub(crate) fn of(self, turn: usize, pin: Pin) -> Self {
        Self { turn, pin, ..self }
    }

    /// The next response.
    ///
    /// # Errors
    /// Where the stream has ended, or is another cluster's.
    pub async fn next(&mut self) -> Result<WatchResponse, Status> {
        let ended = || Status::unavailable("the member ended the watch");
        let response = self.responses.message().await?.ok_or_else(ended)?;
        self.pin.check(&response)?;
        Ok(response)
    }
}

/// A request that a member without a leader refuses.
fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request
}
