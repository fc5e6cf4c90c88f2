//! Queries over a stream: each with its length before it (RFC 1035, section 4.2.2), many at a time (RFC 7766).
//!
//! What can be answered at once is, in order, and goes back by one write for all queries that came together. What takes
//! time is answered when it is there, out of order (RFC 7766, section 7).

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::front::ask;
use super::limits::WRITE_BYTES;
use super::{Answer, Client, Limits, Step};

/// The length before each message.
const PREFIX_BYTES: usize = 2;

/// Room for a read: most queries are far shorter than this, and the room grows for one that is not.
const READ_BYTES: usize = 2048;

/// A stream that is served.
pub(crate) struct Stream<A> {
    pub answer: Arc<A>,
    pub client: Client,
    pub limits: Limits,
    /// No more queries are taken; those that were are answered.
    pub closed: CancellationToken,
}

impl<A: Answer> Stream<A> {
    /// Serves until the client ends, says nothing for too long, or breaks the rules.
    pub async fn serve<S>(self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (answers, mut answered) = mpsc::channel::<Vec<u8>>(self.limits.pipelined_max);
        let room = Arc::new(Semaphore::new(self.limits.pipelined_max));
        let mut waiting = tokio::task::JoinSet::new();
        let mut input = Vec::with_capacity(READ_BYTES);
        let mut output = Vec::new();
        let mut scratch = Vec::new();
        let mut deadline = Instant::now() + self.limits.idle;
        loop {
            while waiting.try_join_next().is_some() {}
            input.reserve(READ_BYTES);
            let read = tokio::select! {
                read = timeout_at(deadline, reader.read_buf(&mut input)) => read,
                Some(late) = answered.recv() => {
                    frame(&mut output, &late);
                    self.write(&mut writer, &mut output).await?;
                    deadline = Instant::now() + self.limits.idle;
                    continue;
                }
                _ = self.closed.cancelled() => break,
            };
            match read {
                Ok(Ok(0)) | Ok(Err(_)) => break,
                // A stream whose client waits for answers is not idle.
                Err(_) if waiting.is_empty() => break,
                Err(_) => deadline = Instant::now() + self.limits.idle,
                Ok(Ok(_)) => {}
            }
            let mut used = 0;
            while let Some(message) = framed(&input[used..]) {
                used += PREFIX_BYTES + message.len();
                match self.take(message, &mut scratch, &mut output) {
                    Step::Answered => {}
                    Step::Later => {
                        let permit = loop {
                            tokio::select! {
                                biased;
                                Some(late) = answered.recv() => frame(&mut output, &late),
                                permit = Arc::clone(&room).acquire_owned() => break permit,
                            }
                            self.write(&mut writer, &mut output).await?;
                        };
                        let request = message.to_vec();
                        let (answer, client) = (Arc::clone(&self.answer), self.client);
                        let answers = answers.clone();
                        waiting.spawn(async move {
                            if let Some(late) = answer.later(request, client).await {
                                // Nobody takes it when the stream has ended.
                                let _ = answers.send(late).await;
                            }
                            drop(permit);
                        });
                    }
                    Step::Drop => return Ok(()),
                    Step::Transfer(messages) => {
                        for message in messages {
                            frame(&mut output, &message);
                            self.write(&mut writer, &mut output).await?;
                        }
                    }
                }
                if output.len() >= WRITE_BYTES {
                    self.write(&mut writer, &mut output).await?;
                }
            }
            if used > 0 {
                deadline = Instant::now() + self.limits.idle;
            }
            input.drain(..used);
            self.write(&mut writer, &mut output).await?;
        }
        drop(answers);
        while let Some(late) = answered.recv().await {
            frame(&mut output, &late);
            self.write(&mut writer, &mut output).await?;
        }
        timeout(self.limits.write, writer.shutdown()).await?
    }

    /// Answers one message behind what is to be written.
    fn take(&self, message: &[u8], scratch: &mut Vec<u8>, output: &mut Vec<u8>) -> Step {
        let step = ask(&*self.answer, message, &self.client, scratch);
        if matches!(step, Step::Answered) {
            frame(output, scratch);
        }
        step
    }

    async fn write(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        output: &mut Vec<u8>,
    ) -> io::Result<()> {
        if output.is_empty() {
            return Ok(());
        }
        timeout(self.limits.write, writer.write_all(output)).await??;
        output.clear();
        timeout(self.limits.write, writer.flush()).await?
    }
}

/// The first message, if all of it is there.
fn framed(input: &[u8]) -> Option<&[u8]> {
    let prefix = input.first_chunk::<PREFIX_BYTES>()?;
    let length = usize::from(u16::from_be_bytes(*prefix));
    input.get(PREFIX_BYTES..PREFIX_BYTES + length)
}

fn frame(output: &mut Vec<u8>, message: &[u8]) {
    // No message is longer: Builder keeps within what 16 bits can say.
    let Ok(length) = u16::try_from(message.len()) else {
        return;
    };
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(message);
}
