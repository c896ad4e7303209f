// SPDX-License-Identifier: GPL-2.0

//! Messages to a pool, as far as they take more than the metadata queue.

use crate::{
    core::{
        errno::Result,
        message::Message,
        units::DeviceId, //
    },
    pool_object::Pool, //
};

impl Pool {
    /// Executes a message. Sleeps.
    pub(crate) fn execute(&self, message: &Message) -> Result {
        match *message {
            Message::CreateSnap { device, origin } => self.create_snap(message, device, origin),
            Message::Delete { device } => self.delete(message, device),
            _ => self
                .control
                .call_and_wait(|control| control.message(message)),
        }
    }

    /// A write to the origin that is under way would show in the snapshot later on, as it has been
    /// told that its block is not shared. So the origin stops for a moment, whether or not whoever
    /// sent the message has suspended it.
    fn create_snap(&self, message: &Message, device: DeviceId, origin: DeviceId) -> Result {
        self.drain.with_thin_stopped(origin, |stopped| {
            self.control
                .call_and_wait(|control| control.create_snap(message, stopped, device))
        })
    }

    /// Others can do something between the parts.
    fn delete(&self, message: &Message, device: DeviceId) -> Result {
        self.control
            .call_and_wait(|control| control.begin_delete(message, device))?;
        while !self
            .control
            .call_and_wait(|control| control.delete_part(message, device))?
        {}
        Ok(())
    }
}
