//! A request's way from its decoding to the backend: the session of a client, and the attempts at a
//! request. What is done with a request stands in its command's file.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use varia_spec::errno::Errno;

use crate::backend::Backend;
use crate::command::Request;
use crate::outgoing::Outgoing;
use crate::reach::Reach;

/// Result of an attempt at a request, whose reply's payload is in [`Outgoing`].
#[derive(Debug)]
pub(crate) enum Handled {
    /// The request is done. These descriptors go with the reply.
    Answered(Vec<OwnedFd>),
    /// The device is not ready: the next attempt is due after this time.
    Waits(Duration),
}

/// A request that is done, without descriptors in its reply.
pub(crate) const DONE: Handled = Handled::Answered(Vec::new());

/// State of a request between its attempts.
#[derive(Debug)]
pub(crate) struct Attempts<W> {
    pub(crate) wait: W,
    /// Writes of a REGION_WRITE_MULTI that are done.
    pub(crate) writes: usize,
}

impl<W> Attempts<W> {
    /// None was made yet.
    pub(crate) fn new(wait: W) -> Self {
        Self { wait, writes: 0 }
    }
}

/// An attempt at a request. Only region accesses are attempted more than once.
pub(crate) struct Turn<'a, B: Backend> {
    pub(crate) backend: &'a B,
    /// Descriptors that the client can receive in one message.
    pub(crate) max_fds: usize,
    /// The descriptors that came with the request.
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) attempts: &'a mut Attempts<B::Wait>,
    /// The reply's payload, to be appended to.
    pub(crate) out: &'a mut Outgoing,
}

/// A negotiated client. Dropping the session removes the client's mappings and
/// tells the backend that the client has gone.
pub(crate) struct Session<'a, B: Backend> {
    backend: &'a B,
    /// Descriptors that the client can receive in one message.
    max_fds: usize,
    pub(crate) reach: Arc<Reach>,
}

impl<'a, B: Backend> Session<'a, B> {
    /// The backend may refuse the client.
    pub(crate) fn new(backend: &'a B, max_fds: usize, reach: Arc<Reach>) -> Result<Self, Errno> {
        if let Err(errno) = backend.connected(&reach) {
            reach.close();
            return Err(errno);
        }
        Ok(Self {
            backend,
            max_fds,
            reach,
        })
    }

    /// An attempt at a request, whose reply's payload is appended to `out`.
    pub(crate) fn handle(
        &self,
        request: &Request<'_>,
        fds: Vec<OwnedFd>,
        attempts: &mut Attempts<B::Wait>,
        out: &mut Outgoing,
    ) -> Result<Handled, Errno> {
        request.serve(Turn {
            backend: self.backend,
            max_fds: self.max_fds,
            fds,
            attempts,
            out,
        })
    }
}

impl<B: Backend> Drop for Session<'_, B> {
    fn drop(&mut self) {
        self.reach.close();
        self.backend.dma_unmap_all();
        self.backend.disconnected();
    }
}

/// `EINVAL` if the region does not exist.
pub(crate) fn check_region(backend: &impl Backend, index: u32) -> Result<(), Errno> {
    if index < backend.info().num_regions {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}
