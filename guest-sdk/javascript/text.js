// UTF-8, as in the Encoding Standard.

/** The bytes of a string; lone surrogates become U+FFFD. */
export function encode(string) {
  const bytes = new Uint8Array(string.length * 3);
  let length = 0;
  for (let index = 0; index < string.length; index += 1) {
    let code = string.charCodeAt(index);
    if (code >= 0xd800 && code < 0xe000) {
      const next = string.charCodeAt(index + 1);
      if (code < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (next - 0xdc00);
        index += 1;
      } else {
        code = 0xfffd;
      }
    }
    if (code < 0x80) {
      bytes[length++] = code;
    } else if (code < 0x800) {
      bytes[length++] = 0xc0 | (code >> 6);
      bytes[length++] = 0x80 | (code & 0x3f);
    } else if (code < 0x10000) {
      bytes[length++] = 0xe0 | (code >> 12);
      bytes[length++] = 0x80 | ((code >> 6) & 0x3f);
      bytes[length++] = 0x80 | (code & 0x3f);
    } else {
      bytes[length++] = 0xf0 | (code >> 18);
      bytes[length++] = 0x80 | ((code >> 12) & 0x3f);
      bytes[length++] = 0x80 | ((code >> 6) & 0x3f);
      bytes[length++] = 0x80 | (code & 0x3f);
    }
  }
  return bytes.slice(0, length);
}

// How many bytes follow a first byte, and the valid range of the second one.
function sequence(first) {
  if (first >= 0xc2 && first <= 0xdf) return [1, 0x80, 0xbf];
  if (first === 0xe0) return [2, 0xa0, 0xbf];
  if (first === 0xed) return [2, 0x80, 0x9f];
  if (first >= 0xe1 && first <= 0xef) return [2, 0x80, 0xbf];
  if (first === 0xf0) return [3, 0x90, 0xbf];
  if (first >= 0xf1 && first <= 0xf3) return [3, 0x80, 0xbf];
  if (first === 0xf4) return [3, 0x80, 0x8f];
  return undefined;
}

/** The string of UTF-8 bytes. Invalid bytes become U+FFFD or, with `fatal`, throw a `TypeError`. */
export function decode(bytes, fatal = false) {
  const parts = [];
  let codes = [];
  const wrong = () => {
    if (fatal) throw new TypeError("these bytes are not UTF-8");
    codes.push(0xfffd);
  };
  let index = 0;
  while (index < bytes.length) {
    const first = bytes[index++];
    if (first < 0x80) {
      codes.push(first);
    } else {
      const expected = sequence(first);
      if (expected === undefined) {
        wrong();
      } else {
        let [left, low, high] = expected;
        let code = first & (0x3f >> left);
        while (left > 0 && index < bytes.length && bytes[index] >= low && bytes[index] <= high) {
          code = (code << 6) | (bytes[index++] & 0x3f);
          [left, low, high] = [left - 1, 0x80, 0xbf];
        }
        if (left > 0) wrong();
        else codes.push(code);
      }
    }
    // The number of arguments of a call is limited.
    if (codes.length >= 4096) {
      parts.push(String.fromCodePoint(...codes));
      codes = [];
    }
  }
  parts.push(String.fromCodePoint(...codes));
  return parts.join("");
}

export class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(string = "") {
    return encode(String(string));
  }
}

export class TextDecoder {
  #fatal;

  constructor(label = "utf-8", { fatal = false } = {}) {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`only UTF-8 can be decoded, not ${label}`);
    this.#fatal = fatal;
  }

  get encoding() {
    return "utf-8";
  }

  decode(input = new Uint8Array()) {
    const bytes = ArrayBuffer.isView(input)
      ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
      : new Uint8Array(input);
    const string = decode(bytes, this.#fatal);
    return string.startsWith("\ufeff") ? string.slice(1) : string;
  }
}
