// SPDX-License-Identifier: GPL-2.0

//! What messages ask of a pool.

use super::Control;
use crate::{
    core::{
        errno::{
            Errno,
            Result, //
        },
        message::Message,
        mode::Service,
        units::DeviceId, //
    },
    drain::DrainedThin,
    log, //
};

impl Control {
    /// Whether messages are executed at present.
    pub(crate) fn takes_messages(&self) -> bool {
        self.rules().messages == Service::Serve
    }

    /// Executes a message that takes one step, and needs nobody to be stopped.
    pub(crate) fn message(&mut self, message: &Message) -> Result {
        self.may_execute(message)?;
        let done = match *message {
            Message::CreateThin { device } => self.metadata.create_thin(device),
            Message::SetTransactionId { current, new } => {
                self.metadata.set_transaction_id(current, new)
            }
            Message::ReserveMetadataSnap => self.reserve_metadata_snap(),
            Message::ReleaseMetadataSnap => self.metadata.release_metadata_snap(),
            Message::CreateSnap { .. } | Message::Delete { .. } => Err(Errno::EINVAL),
        };
        self.executed(message, done)
    }

    /// Takes a snapshot of a thin device that is stopped.
    pub(crate) fn create_snap(
        &mut self,
        message: &Message,
        origin: &DrainedThin<'_>,
        device: DeviceId,
    ) -> Result {
        self.may_execute(message)?;
        let done = self.metadata.create_snap(device, origin.device());
        if done.is_ok() {
            // All blocks of the origin are shared now.
            if let Some(thin) = self.tables.find(origin.device()) {
                thin.cache.clear();
            }
        }
        self.executed(message, done)
    }

    /// Begins to delete a thin device: nobody can use it any more.
    pub(crate) fn begin_delete(&mut self, message: &Message, device: DeviceId) -> Result {
        self.may_execute(message)?;
        let begun = self.metadata.begin_delete(device);
        self.report(message, begun)
    }

    /// Deletes a part of a thin device. Returns whether that was the last one.
    pub(crate) fn delete_part(&mut self, message: &Message, device: DeviceId) -> Result<bool> {
        let gone = self
            .may_execute(message)
            .and_then(|()| self.metadata.delete_part(device))
            .inspect_err(|_| self.metadata.give_up_delete(device));
        match gone {
            Ok(false) => {
                // What is gone can be used by others, whose failures do not bring it back.
                let _ = self.commit();
                Ok(false)
            }
            gone => self.executed(message, gone.map(|_| ())).map(|()| true),
        }
    }

    fn reserve_metadata_snap(&mut self) -> Result {
        // It shows what is committed.
        self.commit()?;
        self.metadata.reserve_metadata_snap()
    }

    /// The mode may have changed since the message was admitted.
    fn may_execute(&self, message: &Message) -> Result {
        super::admit(self.rules().messages).inspect_err(|_| {
            log::error!(
                self.name;
                "unable to service pool target messages in READ_ONLY or FAIL mode: {}",
                log::Text(message)
            );
        })
    }

    /// Sees to what a message has come to.
    fn executed(&mut self, message: &Message, done: Result) -> Result {
        self.report(message, done)?;
        // The message has been executed, whatever becomes of the commit: that is reported as any
        // other failure to commit.
        let _ = self.commit();
        Ok(())
    }

    fn report(&mut self, message: &Message, done: Result) -> Result {
        let Err(error) = done else {
            return Ok(());
        };
        log::warn!(
            self.name;
            "{}: error {}",
            log::Text(message.failure()),
            error.to_return_value()
        );
        if self.metadata.must_abort() {
            self.failed("executing a message", error);
        }
        Err(error)
    }
}
