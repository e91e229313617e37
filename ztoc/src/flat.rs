//! Reading FlatBuffers without `unsafe`, and without trusting a single offset.
//!
//! The `flatbuffers` crate reads tables through `unsafe` accessors behind a verifier that refuses strings
//! which are not UTF-8; tar names need not be. This reader checks each access against the buffer instead,
//! which costs little for a table that is walked once. (The writer uses the crate.)
//!
//! Layout, from the FlatBuffers internals document: a table starts with a signed offset back to its vtable;
//! the vtable holds its own size, the table's size, and per field a 16-bit offset into the table, 0 for
//! absent. References are unsigned 32-bit offsets forward from where they stand. Strings and vectors start
//! with a 32-bit length. All numbers are little-endian.

use super::error::Error;

fn array<const N: usize>(buffer: &[u8], at: usize) -> Result<[u8; N], Error> {
    at.checked_add(N)
        .and_then(|end| buffer.get(at..end))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(Error::Malformed("an offset points outside the buffer"))
}

fn u16_at(buffer: &[u8], at: usize) -> Result<usize, Error> {
    Ok(u16::from_le_bytes(array(buffer, at)?).into())
}

fn u32_at(buffer: &[u8], at: usize) -> Result<usize, Error> {
    Ok(u32::from_le_bytes(array(buffer, at)?) as usize)
}

fn follow(buffer: &[u8], at: usize) -> Result<usize, Error> {
    at.checked_add(u32_at(buffer, at)?).ok_or(Error::Malformed("an offset points outside the buffer"))
}

/// A table in a buffer. Field accessors take the field's id, in declaration order from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    buffer: &'a [u8],
    at: usize,
    vtable: usize,
    vtable_size: usize,
}

impl<'a> Table<'a> {
    /// The root table of a buffer without identifier and size prefix.
    pub(crate) fn root(buffer: &'a [u8]) -> Result<Self, Error> {
        Self::at(buffer, follow(buffer, 0)?)
    }

    /// The table at a position.
    pub(crate) fn at(buffer: &'a [u8], at: usize) -> Result<Self, Error> {
        let back = i32::from_le_bytes(array(buffer, at)?);
        let vtable = i64::try_from(at)
            .ok()
            .and_then(|at| usize::try_from(at - i64::from(back)).ok())
            .ok_or(Error::Malformed("a vtable lies outside the buffer"))?;
        let vtable_size = u16_at(buffer, vtable)?;
        Ok(Self { buffer, at, vtable, vtable_size })
    }

    /// Another table of the same buffer.
    pub(crate) fn sibling(&self, at: usize) -> Result<Self, Error> {
        Self::at(self.buffer, at)
    }

    /// Where this table stands.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Where the field stands, or `None` if it is absent.
    fn field(&self, id: usize) -> Result<Option<usize>, Error> {
        let slot = 4 + 2 * id;
        if slot + 2 > self.vtable_size {
            return Ok(None);
        }
        let offset = u16_at(self.buffer, self.vtable + slot)?;
        Ok((offset != 0).then_some(self.at + offset))
    }

    pub(crate) fn i8(&self, id: usize, default: i8) -> Result<i8, Error> {
        self.field(id)?.map_or(Ok(default), |at| array(self.buffer, at).map(i8::from_le_bytes))
    }

    pub(crate) fn i32(&self, id: usize) -> Result<i32, Error> {
        self.field(id)?.map_or(Ok(0), |at| array(self.buffer, at).map(i32::from_le_bytes))
    }

    pub(crate) fn u32(&self, id: usize) -> Result<u32, Error> {
        self.field(id)?.map_or(Ok(0), |at| array(self.buffer, at).map(u32::from_le_bytes))
    }

    pub(crate) fn i64(&self, id: usize) -> Result<i64, Error> {
        self.field(id)?.map_or(Ok(0), |at| array(self.buffer, at).map(i64::from_le_bytes))
    }

    /// A string or byte vector; empty if absent.
    pub(crate) fn bytes(&self, id: usize) -> Result<&'a [u8], Error> {
        match self.field(id)? {
            Some(at) => bytes_at(self.buffer, follow(self.buffer, at)?),
            None => Ok(&[]),
        }
    }

    pub(crate) fn table(&self, id: usize) -> Result<Option<Table<'a>>, Error> {
        self.field(id)?.map(|at| Table::at(self.buffer, follow(self.buffer, at)?)).transpose()
    }

    pub(crate) fn vector(&self, id: usize) -> Result<Option<Vector<'a>>, Error> {
        let Some(at) = self.field(id)? else { return Ok(None) };
        let at = follow(self.buffer, at)?;
        let length = u32_at(self.buffer, at)?;
        let first = at + 4;
        if length > self.buffer.len().saturating_sub(first) / 4 {
            return Err(Error::Malformed("a vector is longer than the buffer"));
        }
        Ok(Some(Vector { buffer: self.buffer, first, length }))
    }
}

fn bytes_at(buffer: &[u8], at: usize) -> Result<&[u8], Error> {
    let length = u32_at(buffer, at)?;
    let first = at + 4;
    first
        .checked_add(length)
        .and_then(|end| buffer.get(first..end))
        .ok_or(Error::Malformed("a string is longer than the buffer"))
}

/// A vector of references.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vector<'a> {
    buffer: &'a [u8],
    first: usize,
    length: usize,
}

impl<'a> Vector<'a> {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    fn element(&self, index: usize) -> Result<usize, Error> {
        if index >= self.length {
            return Err(Error::Malformed("an index lies outside its vector"));
        }
        follow(self.buffer, self.first + 4 * index)
    }

    pub(crate) fn table(&self, index: usize) -> Result<Table<'a>, Error> {
        Table::at(self.buffer, self.element(index)?)
    }

    pub(crate) fn bytes(&self, index: usize) -> Result<&'a [u8], Error> {
        bytes_at(self.buffer, self.element(index)?)
    }
}
