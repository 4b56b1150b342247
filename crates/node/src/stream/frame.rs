//! SPDY/3.1 frames to bytes and back, with the header compression both ends keep in step. Sans-IO.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::limits;

const VERSION: u16 = 3;
const HEAD_BYTES: usize = 8;
const FLAG_FIN: u8 = 1;
/// Decompressed size of one header block.
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// The words of the protocol's compression dictionary (SPDY/3 §2.6.10.1), each preceded by its length.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// Its rest, without lengths.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
charset=iso-8859-1,utf-,*,enq=0.";

pub type Headers = Vec<(String, String)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream { id: u32, fin: bool, headers: Headers },
    SynReply { id: u32, fin: bool, headers: Headers },
    Reset { id: u32, status: u32 },
    Settings,
    Ping(u32),
    GoAway { last: u32 },
    Headers { id: u32, fin: bool, headers: Headers },
    WindowUpdate { id: u32, delta: u32 },
    Data { id: u32, fin: bool, bytes: Bytes },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {length} bytes is too long")]
    TooLong { length: usize },
    #[error("frame is cut short")]
    Short,
    #[error("SPDY version {version}")]
    Version { version: u16 },
    #[error("header block cannot be decompressed")]
    Headers,
}

/// Compressor of one direction.
pub struct Encoder {
    deflate: Compress,
}

/// Decompressor and reader of the other.
pub struct Decoder {
    inflate: Decompress,
}

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS {
        bytes.put_u32(u32::try_from(word.len()).expect("words are short"));
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(REST.as_bytes());
    bytes
}

impl Default for Encoder {
    fn default() -> Encoder {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(&dictionary()).expect("a fresh stream takes a dictionary");
        Encoder { deflate }
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { inflate: Decompress::new(true) }
    }
}

impl Encoder {
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let block = self.compress(headers);
                control(out, 1, flags(*fin), 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => self.with_headers(2, *id, *fin, headers, out),
            Frame::Headers { id, fin, headers } => self.with_headers(8, *id, *fin, headers, out),
            Frame::Reset { id, status } => pair(out, 3, *id, *status),
            Frame::Settings => {
                control(out, 4, 0, 4);
                out.put_u32(0);
            }
            Frame::Ping(id) => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last } => pair(out, 7, *last, 0),
            Frame::WindowUpdate { id, delta } => pair(out, 9, *id, *delta),
            Frame::Data { id, fin, bytes } => {
                out.put_u32(*id & 0x7fff_ffff);
                out.put_u32(u32::from(flags(*fin)) << 24 | u32::try_from(bytes.len()).expect("frames are bounded"));
                out.put_slice(bytes);
            }
        }
    }

    fn with_headers(&mut self, kind: u16, id: u32, fin: bool, headers: &Headers, out: &mut BytesMut) {
        let block = self.compress(headers);
        control(out, kind, flags(fin), 4 + block.len());
        out.put_u32(id);
        out.put_slice(&block);
    }

    fn compress(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::new();
        let length = |text: &str| u32::try_from(text.len()).expect("headers are short");
        plain.put_u32(u32::try_from(headers.len()).expect("headers are few"));
        for (name, value) in headers {
            let name = name.to_lowercase();
            plain.put_u32(length(&name));
            plain.put_slice(name.as_bytes());
            plain.put_u32(length(value));
            plain.put_slice(value.as_bytes());
        }
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let from = self.deflate.total_in();
        loop {
            let done = usize::try_from(self.deflate.total_in() - from).expect("a header block fits");
            packed.reserve(256);
            let room = packed.capacity();
            self.deflate
                .compress_vec(&plain[done..], &mut packed, FlushCompress::Sync)
                .expect("deflating into memory does not fail");
            let all_in = usize::try_from(self.deflate.total_in() - from).expect("a header block fits") == plain.len();
            if all_in && packed.len() < room {
                return packed;
            }
        }
    }
}

fn flags(fin: bool) -> u8 {
    if fin { FLAG_FIN } else { 0 }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).expect("control frames are short"));
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

impl Decoder {
    /// Takes one frame off the front of `buffer`; None when it is not all there yet. Unknown control frames are skipped.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if buffer.len() < HEAD_BYTES {
                return Ok(None);
            }
            let length = u32::from_be_bytes([0, buffer[5], buffer[6], buffer[7]]) as usize;
            if limits::FRAME_BYTES_MAX < length {
                return Err(FrameError::TooLong { length });
            }
            if buffer.len() < HEAD_BYTES + length {
                buffer.reserve(HEAD_BYTES + length - buffer.len());
                return Ok(None);
            }
            let mut head = buffer.split_to(HEAD_BYTES);
            let mut body = buffer.split_to(length).freeze();
            let fin = head[4] & FLAG_FIN != 0;
            if head[0] & 0x80 == 0 {
                return Ok(Some(Frame::Data { id: head.get_u32(), fin, bytes: body }));
            }
            let version = head.get_u16() & 0x7fff;
            if version != VERSION {
                return Err(FrameError::Version { version });
            }
            if let Some(frame) = self.control(head.get_u16(), fin, &mut body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, fin: bool, body: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        let word = |body: &mut Bytes| if body.len() < 4 { Err(FrameError::Short) } else { Ok(body.get_u32()) };
        Ok(Some(match kind {
            1 => {
                let id = word(body)? & 0x7fff_ffff;
                word(body)?;
                if body.len() < 2 {
                    return Err(FrameError::Short);
                }
                body.advance(2);
                Frame::SynStream { id, fin, headers: self.headers(body)? }
            }
            2 => Frame::SynReply { id: word(body)? & 0x7fff_ffff, fin, headers: self.headers(body)? },
            3 => Frame::Reset { id: word(body)? & 0x7fff_ffff, status: word(body)? },
            4 => Frame::Settings,
            6 => Frame::Ping(word(body)?),
            7 => Frame::GoAway { last: word(body)? & 0x7fff_ffff },
            8 => Frame::Headers { id: word(body)? & 0x7fff_ffff, fin, headers: self.headers(body)? },
            9 => Frame::WindowUpdate { id: word(body)? & 0x7fff_ffff, delta: word(body)? & 0x7fff_ffff },
            _ => return Ok(None),
        }))
    }

    fn headers(&mut self, body: &Bytes) -> Result<Headers, FrameError> {
        let mut plain = Bytes::from(self.inflate(body)?);
        let number = |plain: &mut Bytes| {
            if plain.len() < 4 { Err(FrameError::Headers) } else { Ok(plain.get_u32() as usize) }
        };
        let count = number(&mut plain)?;
        let mut headers = Headers::new();
        for _ in 0..count {
            let mut text = || {
                let length = number(&mut plain)?;
                if plain.len() < length {
                    return Err(FrameError::Headers);
                }
                Ok(String::from_utf8_lossy(&plain.split_to(length)).into_owned())
            };
            headers.push((text()?, text()?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, packed: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut plain = Vec::with_capacity(1024);
        let mut rest = packed;
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), plain.len());
            plain.reserve(1024);
            let outcome = self.inflate.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let taken = usize::try_from(self.inflate.total_in() - before_in).expect("a block fits");
            rest = &rest[taken..];
            match outcome {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(FrameError::Headers),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if HEADERS_BYTES_MAX < plain.len() {
                return Err(FrameError::Headers);
            }
            if rest.is_empty() && plain.len() < plain.capacity() {
                return Ok(plain);
            }
            if taken == 0 && plain.len() == before_out {
                return Err(FrameError::Headers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let bytes = dictionary();
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &bytes {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((bytes.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn frames_round_trip_in_any_pieces() {
        let headers =
            |pairs: &[(&str, &str)]| -> Headers { pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect() };
        let long = "x".repeat(5000);
        let frames = [
            Frame::SynStream { id: 1, fin: false, headers: headers(&[("streamtype", "error"), ("port", "80")]) },
            Frame::SynStream { id: 3, fin: false, headers: headers(&[("streamtype", "data"), ("long", &long)]) },
            Frame::SynReply { id: 1, fin: true, headers: Headers::new() },
            Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"hello") },
            Frame::Data { id: 3, fin: true, bytes: Bytes::new() },
            Frame::Ping(7),
            Frame::Reset { id: 3, status: 5 },
            Frame::WindowUpdate { id: 1, delta: 65536 },
            Frame::Settings,
            Frame::GoAway { last: 3 },
        ];
        let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame, &mut wire);
        }
        for step in [1, 7, 4096] {
            let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames);
        }
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        let mut decoder = Decoder::default();
        let mut bytes = BytesMut::from(
            &b"\x80\x03\x00\x01\x00\x00\x00\x0e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"[..],
        );
        assert!(decoder.decode(&mut bytes).is_err());
        let mut bytes = BytesMut::from(&b"\x80\x03\x00\x01\x00\xff\xff\xff\x00"[..]);
        assert!(matches!(decoder.decode(&mut bytes), Err(FrameError::TooLong { .. })));
        let mut bytes = BytesMut::from(&b"\x80\x03\x00\x06\x00\x00\x00\x01\x00"[..]);
        assert_eq!(decoder.decode(&mut bytes), Err(FrameError::Short));
    }
}
