//! What apps say in binary mode: each frame to what the same line would do (socket.md, 9).

use std::borrow::Cow;
use std::sync::Arc;

use crate::core::Node;
use crate::core::encoder::Destination;
use crate::id::{AppChannel, ClientId, RequestId, Topic};
use crate::limits;
use crate::wire::local::frame::Frame;
use crate::wire::local::{BadLine, ErrorCode, Opening, Outgoing, Subject, Text};

impl Node {
    pub(crate) fn on_frame(&mut self, client: ClientId, frame: Result<Frame<'_>, BadLine>) {
        match frame {
            Ok(Frame::Request(request)) => self.on_request(client, Ok(request)),
            Ok(Frame::Open { id, chan, opening }) => self.open_channel(client, id, chan, opening),
            Ok(Frame::Close { id, chan }) => self.close_channel(client, id, chan),
            Ok(Frame::Send { id, chan, message }) => self.send_on_channel(client, id, chan, message),
            Err(bad) => self.on_request(client, Err(bad)),
        }
    }

    fn open_channel(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        chan: AppChannel,
        opening: Opening<'_>,
    ) {
        let Some(channels) = self.clients.get_mut(client).and_then(|known| known.channels()) else { return };
        if channels.destinations.contains_key(&chan) {
            let message = format!("channel {} is open already", chan.0);
            return self.refuse(client, id, ErrorCode::BadRequest, message.into(), "close it first");
        }
        if channels.destinations.len() >= limits::CHANNELS {
            let message = format!("one app opens at most {} channels", limits::CHANNELS);
            return self.refuse(client, id, ErrorCode::Limit, message.into(), "close some first");
        }
        let to = opening.to.map(|to| to.as_str().to_owned());
        // No name and no id is longer; one that is would only be kept.
        if to.as_ref().is_some_and(|to| to.len() > limits::NAME_BYTES) {
            let message = format!("a name has at most {} bytes", limits::NAME_BYTES);
            let hint = "\"to\" is an exact name or id";
            return self.refuse(client, id, ErrorCode::BadRequest, message.into(), hint);
        }
        let Ok(topic) = opening.subject.topic.as_str().parse::<Topic>() else { return };
        let destination = Destination {
            to,
            topic,
            replies: opening.subject.replies,
            timeout: opening.timeout,
            when_no_listener: opening.when_no_listener,
        };
        channels.destinations.insert(chan, Arc::new(destination));
        self.ok(client, id);
    }

    fn close_channel(&mut self, client: ClientId, id: Option<RequestId>, chan: AppChannel) {
        let channels = self.clients.get_mut(client).and_then(|known| known.channels());
        if channels.and_then(|channels| channels.destinations.remove(&chan)).is_none() {
            return self.refuse_closed(client, id, chan);
        }
        self.ok(client, id);
    }

    fn send_on_channel(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        chan: AppChannel,
        message: Outgoing<'_>,
    ) {
        let channels = self.clients.get_mut(client).and_then(|known| known.channels());
        let Some(destination) = channels.and_then(|channels| channels.destinations.get(&chan).cloned())
        else {
            return self.refuse_closed(client, id, chan);
        };
        if destination.replies.is_some() && id.is_none() {
            let message = "on a channel with \"replies\" a message needs an id".into();
            return self.refuse(client, id, ErrorCode::BadRequest, message, "number your requests from 1");
        }
        let topic = Text(Cow::Borrowed(destination.topic.as_str()));
        let subject = Subject { topic, replies: destination.replies };
        let (timeout, when_no_listener) = (destination.timeout, destination.when_no_listener);
        let message = Outgoing { timeout, when_no_listener, ..message };
        match &destination.to {
            Some(to) => self.send(client, id, to, &subject, &message),
            None => self.publish(client, id, &subject, &message),
        }
    }

    fn refuse_closed(&mut self, client: ClientId, id: Option<RequestId>, chan: AppChannel) {
        let message = format!("channel {} is not open", chan.0);
        self.refuse(client, id, ErrorCode::BadRequest, message.into(), "open it first");
    }
}
