//! Shapes as a PNG image: drawn with soft edges, with letters that are compiled in, since a
//! server has no fonts.
//!
//! The file is written here and not by the `png` crate, which would bring two versions of
//! the same compressor. Source: the PNG specification, third edition (W3C), sections 5
//! and 11.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::{Anchor, Colour, HEIGHT, Shape, WIDTH};

const PIXELS_WIDE: usize = WIDTH as usize;
const PIXELS_HIGH: usize = HEIGHT as usize;

const WEIGHT: FontWeight = FontWeight::Regular;
const SIZE: RasterHeight = RasterHeight::Size16;
/// From the top of a letter's box to its base line.
const BASE_LINE: f64 = 13.0;

/// The file.
pub(super) fn encode(shapes: &[Shape]) -> Vec<u8> {
    let mut image = Image(vec![255; PIXELS_WIDE * PIXELS_HIGH * 3]);
    for shape in shapes {
        match shape {
            Shape::Line { points, colour, width } => {
                for pair in points.windows(2) {
                    image.segment(pair[0], pair[1], *width, *colour);
                }
            }
            Shape::Text { at, anchor, text, colour } => image.text(*at, *anchor, text, *colour),
        }
    }
    file(&image)
}

/// Three bytes a pixel, rows from the top.
struct Image(Vec<u8>);

impl Image {
    /// Lays `colour` over a pixel so far as `coverage`, between 0 and 1, says.
    fn blend(&mut self, x: usize, y: usize, colour: Colour, coverage: f64) {
        if x >= PIXELS_WIDE || y >= PIXELS_HIGH {
            return;
        }
        let start = (y * PIXELS_WIDE + x) * 3;
        let pixel = &mut self.0[start..start + 3];
        for (byte, part) in pixel.iter_mut().zip([colour.0, colour.1, colour.2]) {
            let mixed = f64::from(*byte) * (1.0 - coverage) + f64::from(part) * coverage;
            *byte = mixed.round() as u8;
        }
    }

    /// A pixel is covered by how near its middle is to the line.
    fn segment(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: Colour) {
        let reach = width / 2.0 + 1.0;
        let clamped = |value: f64, limit: usize| value.clamp(0.0, limit as f64) as usize;
        let columns = clamped(from.0.min(to.0) - reach, PIXELS_WIDE)
            ..clamped(from.0.max(to.0) + reach + 1.0, PIXELS_WIDE);
        let rows = clamped(from.1.min(to.1) - reach, PIXELS_HIGH)
            ..clamped(from.1.max(to.1) + reach + 1.0, PIXELS_HIGH);
        let (along_x, along_y) = (to.0 - from.0, to.1 - from.1);
        let length_squared = along_x * along_x + along_y * along_y;
        for y in rows {
            for x in columns.clone() {
                let (off_x, off_y) = (x as f64 + 0.5 - from.0, y as f64 + 0.5 - from.1);
                let share = if length_squared > 0.0 {
                    ((off_x * along_x + off_y * along_y) / length_squared).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                let (x_away, y_away) = (off_x - share * along_x, off_y - share * along_y);
                let coverage = width / 2.0 + 0.5 - x_away.hypot(y_away);
                if coverage > 0.0 {
                    self.blend(x, y, colour, coverage.min(1.0));
                }
            }
        }
    }

    fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str, colour: Colour) {
        let letter = get_raster_width(WEIGHT, SIZE);
        let width = (letter * text.chars().count()) as f64;
        let left = at.0
            - match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => width / 2.0,
                Anchor::End => width,
            };
        let (left, top) = (left.max(0.0).round() as usize, (at.1 - BASE_LINE).max(0.0) as usize);
        for (index, character) in text.chars().enumerate() {
            let raster =
                get_raster(character, WEIGHT, SIZE).or_else(|| get_raster('?', WEIGHT, SIZE));
            let Some(raster) = raster else { continue };
            for (y, row) in raster.rows().enumerate() {
                for (x, level) in row.iter().enumerate() {
                    let coverage = f64::from(*level) / 255.0;
                    self.blend(left + index * letter + x, top + y, colour, coverage);
                }
            }
        }
    }
}

fn file(image: &Image) -> Vec<u8> {
    /// Good enough, and quick.
    const COMPRESSION_LEVEL: u8 = 6;
    /// Eight bits a channel, red, green and blue; the only methods there are; no interlacing.
    const KIND: [u8; 5] = [8, 2, 0, 0, 0];
    let mut rows = Vec::with_capacity(image.0.len() + PIXELS_HIGH);
    for row in image.0.chunks_exact(PIXELS_WIDE * 3) {
        // No filter.
        rows.push(0);
        rows.extend_from_slice(row);
    }
    let mut header = Vec::new();
    header.extend_from_slice(&(PIXELS_WIDE as u32).to_be_bytes());
    header.extend_from_slice(&(PIXELS_HIGH as u32).to_be_bytes());
    header.extend_from_slice(&KIND);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, b"IHDR", &header);
    let data = miniz_oxide::deflate::compress_to_vec_zlib(&rows, COMPRESSION_LEVEL);
    chunk(&mut file, b"IDAT", &data);
    chunk(&mut file, b"IEND", &[]);
    file
}

/// Length, name, data, and the checksum of name and data.
fn chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let checked = file.len();
    file.extend_from_slice(name);
    file.extend_from_slice(data);
    let checksum = crc32fast::hash(&file[checked..]);
    file.extend_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        let line = Shape::Line {
            points: vec![(10.0, 10.0), (200.0, 10.0)],
            colour: Colour(1, 2, 3),
            width: 4.0,
        };
        let file = encode(&[line]);
        // The header chunk is 25 bytes behind the signature, then length and name of the data.
        let data_at = 8 + 25;
        let length = u32::from_be_bytes(file[data_at..data_at + 4].try_into().unwrap()) as usize;
        assert_eq!(&file[data_at + 4..data_at + 8], b"IDAT");
        let data = &file[data_at + 8..data_at + 8 + length];
        let rows = miniz_oxide::inflate::decompress_to_vec_zlib(data).expect("whole");
        assert_eq!(rows.len(), PIXELS_HIGH * (1 + PIXELS_WIDE * 3));
        let pixel = |x: usize, y: usize| {
            let start = y * (1 + PIXELS_WIDE * 3) + 1 + x * 3;
            &rows[start..start + 3]
        };
        assert_eq!(pixel(100, 10), [1, 2, 3], "on the line");
        assert_eq!(pixel(100, 20), [255, 255, 255], "beside it");
        assert_eq!(pixel(300, 10), [255, 255, 255], "behind it");
    }

    #[test]
    fn text_leaves_ink_and_nothing_outside_of_the_image_is_touched() {
        let text = |at| Shape::Text {
            at,
            anchor: Anchor::End,
            text: "10 µs".to_owned(),
            colour: Colour(0, 0, 0),
        };
        let blank = encode(&[]).len();
        assert!(encode(&[text((200.0, 100.0))]).len() > blank);
        encode(&[text((0.0, 0.0)), text((5_000.0, 5_000.0))]);
    }
}
