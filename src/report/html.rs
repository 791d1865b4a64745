//! Small means for HTML: escaping, data addresses, tables, and the page around it all.

use std::fmt::Write;

/// Text as content or as the value of an attribute in double quotes. Control characters, which HTML forbids, become blanks.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Marks that turn the direction of writing could make a name read as another one.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// `data:image/png;base64,…` (RFC 2397, RFC 4648).
pub(super) fn data_address(media_type: &str, bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = format!("data:{media_type};base64,");
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, i| word << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// A table that scrolls by itself where the page is too narrow. The first cell of a row is its head. Class `stacks`: measure,
/// value, interval and note come below each other on narrow pages; `dense`: many columns of numbers.
pub(super) fn table(class: &str, caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"{class}\"><caption><span>{}</span></caption>\n<thead><tr>",
        escaped(caption)
    );
    for cell in head {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escaped(cell));
    }
    out += "</tr></thead>\n<tbody>\n";
    for row in rows {
        out += "<tr>";
        for (i, cell) in row.iter().enumerate() {
            let cell = escaped(cell);
            let _ = match i {
                0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                _ => write!(out, "<td>{cell}</td>"),
            };
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

/// A figure with its caption; the content is HTML already.
pub(super) fn figure(class: &str, content: &str, caption: &str) -> String {
    format!("<figure class=\"{class}\">{content}<figcaption>{}</figcaption></figure>\n", escaped(caption))
}

/// The page; the body is HTML already.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escaped(title)
    )
}

/// Light, dark, narrow, printed. Colours of curves go from the centre (dark in light mode) to the edge.
const STYLE: &str = "\
:root{--ground:#fff;--card:#f5f6f8;--ink:#1b1c20;--faint:#5a5d66;--line:#d5d8de;--accent:#0a5ea8;--band:#0a5ea8;\
--c0:#2d0b59;--c1:#6a176e;--c2:#a52c60;--c3:#d14f3c;--c4:#c77600;--c5:#8a8500}
@media screen and (prefers-color-scheme:dark){:root{--ground:#121317;--card:#1c1e24;--ink:#e9eaee;--faint:#a3a7b2;\
--line:#363a44;--accent:#7db8f2;--band:#7db8f2;--c0:#a98bf0;--c1:#d77be0;--c2:#ff7a9c;--c3:#ff9668;--c4:#ffc24d;--c5:#ece96a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,\
\"Noto Sans\",\"DejaVu Sans\",sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.65rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .7rem;padding-top:.6rem;border-top:1px solid var(--line)}
p{margin:.4rem 0}
.faint{color:var(--faint);font-size:.92rem;overflow-wrap:anywhere}
.words{background:var(--card);border-left:4px solid var(--accent);border-radius:4px;padding:.7rem 1rem;margin:1rem 0}
.words p{margin:.35rem 0}
.caution{font-weight:600}
figure{margin:0 0 1rem;min-width:0}
figcaption{color:var(--faint);font-size:.88rem;margin-top:.35rem}
img,svg{display:block;max-width:100%;height:auto}
img{border-radius:4px;background:#0d0e11}
svg{width:100%;background:var(--card);border-radius:4px}
.pair{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:14px}
.scroll{overflow-x:auto;margin:.6rem 0 1.2rem}
table{border-collapse:collapse;width:100%;font-size:.93rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--faint);font-size:.88rem;padding-bottom:.35rem}
th,td{text-align:left;padding:.32rem .8rem .32rem 0;border-bottom:1px solid var(--line);vertical-align:top}
thead th{color:var(--faint);font-weight:600;white-space:nowrap}
tbody th{font-weight:500}
caption span{display:block;position:sticky;left:0;width:fit-content;max-width:min(1020px,calc(100vw - 24px))}
.dense{font-size:.88rem}.dense td,.dense th{white-space:nowrap}
.stacks td:nth-child(2),.stacks td:nth-child(3){white-space:nowrap}
text{fill:var(--ink);font:13px system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",\"DejaVu Sans\",sans-serif}
text.faint{fill:var(--faint);font-size:12.5px}
text.name{font-weight:600}
.axis{stroke:var(--faint);stroke-width:1;fill:none}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}
.whisker{stroke-width:1.4;fill:none}
.band{stroke:none;fill-opacity:.2}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}
.still{display:none}
@media (prefers-reduced-motion:reduce){.moving{display:none}.still{display:block}}
@media screen and (max-width:720px){.stacks thead{display:none}.stacks tr{display:block;padding:.4rem 0;border-bottom:1px \
solid var(--line)}.stacks th,.stacks td{display:inline;border:0;padding:0 .5rem 0 0}.stacks tbody th{display:block}\
.stacks td:nth-child(2){font-weight:600}.stacks td:nth-child(4){display:block;color:var(--faint);font-size:.88rem}\
.stacks td:nth-child(4):empty{display:none}}
@media (max-width:720px){main{padding:18px 12px 40px}.pair{grid-template-columns:minmax(0,1fr)}h1{font-size:1.35rem}}
@media print{body{font-size:10.5pt}main{max-width:none;padding:0}h2{break-after:avoid}figure,tr,.words{break-inside:avoid}\
.scroll{overflow:visible}.moving{display:none}.still{display:block}.pair{gap:8px}.words{background:none;border:1px solid \
var(--line);border-left:4px solid var(--accent)}svg{background:none;border:1px solid var(--line)}\
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
@page{margin:16mm}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escaped("<b a=\"1\" c='2'>&\u{1b}\u{202e}é"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;  é");
    }

    #[test]
    fn base64_as_in_the_standard() {
        // The test vectors of RFC 4648, section 10.
        let of = |text: &str| data_address("a/b", text.as_bytes());
        for (text, code) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(of(text), format!("data:a/b;base64,{code}"));
        }
        assert!(data_address("a/b", &[0xfb, 0xff, 0xfe]).ends_with(",+//+"));
    }
}
