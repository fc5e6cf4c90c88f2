//! The wire format of protocol buffers.

use super::Error;

/// One value as it stands on the wire.
pub(super) enum Item<'a> {
    /// A varint.
    Number(u64),
    /// Eight bytes, or four.
    Fixed(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

/// Reads fields one after the other.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Item<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let item = match key & 7 {
            0 => Item::Number(self.varint()?),
            1 => Item::Fixed(self.fixed(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::Wire)?;
                Item::Bytes(self.take(length)?)
            }
            5 => Item::Fixed(self.fixed(4)?),
            _ => return Err(Error::Wire),
        };
        Ok(Some((
            u32::try_from(key >> 3).map_err(|_| Error::Wire)?,
            item,
        )))
    }

    fn varint(&mut self) -> Result<u64, Error> {
        prost::encoding::decode_varint(&mut self.0).map_err(|_| Error::Wire)
    }

    fn fixed(&mut self, bytes: usize) -> Result<u64, Error> {
        Ok(self
            .take(bytes)?
            .iter()
            .rev()
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Wire)?;
        self.0 = rest;
        Ok(taken)
    }
}
