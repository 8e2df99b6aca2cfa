// Tensors of the wire as typed arrays and back.

import { ProtocolError } from "../errors.js";
import type { DataType__Output } from "../schema/lockstep/v1/DataType.js";
import type { Tensor as TensorMessage, Tensor__Output } from "../schema/lockstep/v1/Tensor.js";

type Elements = Float32Array | BigInt64Array;

/** A dense array: the elements in row-major order, and the sizes of its dimensions. */
export class Tensor<Data extends Elements> {
  constructor(
    readonly data: Data,
    readonly shape: readonly number[],
  ) {}

  /** The elements under one index of each of the leading dimensions, without a copy. */
  row(...indices: number[]): Data {
    const size = this.shape.slice(indices.length).reduce((product, each) => product * each, 1);
    const flat = indices.reduce((index, each, axis) => index * this.shape[axis]! + each, 0);
    return this.data.subarray(flat * size, (flat + 1) * size) as Data;
  }
}

/** Reads the bytes of a row of logits or scores; 16-bit types become the same values in 32 bits. */
export function readFloats(bytes: Uint8Array, dtype: DataType__Output): Float32Array {
  const { buffer } = aligned(bytes);
  switch (dtype) {
    case "DATA_TYPE_FLOAT32":
      return new Float32Array(buffer);
    case "DATA_TYPE_BFLOAT16":
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (half) => half << 16).buffer);
    case "DATA_TYPE_FLOAT16":
      return Float32Array.from(new Uint16Array(buffer), readHalf);
    default:
      throw new ProtocolError(`A row of ${String(dtype)} is none of logits or scores.`);
  }
}

/** Reads a tensor of whole numbers. */
export function readInts(message: Tensor__Output | null | undefined): Tensor<BigInt64Array> {
  if (!message) throw new ProtocolError("A padded batch lacks a tensor.");
  const { buffer } = aligned(message.data);
  const shape = message.shape.map(Number);
  if (message.dtype === "DATA_TYPE_INT64") return new Tensor(new BigInt64Array(buffer), shape);
  if (message.dtype === "DATA_TYPE_INT32") {
    return new Tensor(BigInt64Array.from(new Int32Array(buffer), BigInt), shape);
  }
  throw new ProtocolError(`A tensor of ${String(message.dtype)} has no whole numbers.`);
}

/** Builds the wire form. */
export function tensorMessage({ data, shape }: Tensor<Elements>): TensorMessage {
  const dtype = data instanceof BigInt64Array ? "DATA_TYPE_INT64" : "DATA_TYPE_FLOAT32";
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { dtype, shape: [...shape], data: bytes };
}

/** Stacks rows of equal width, `[B, V]`; undefined when one is missing. */
export function stackRows(rows: (Float32Array | undefined)[]): Tensor<Float32Array> | undefined {
  const present = rows.filter((row) => row !== undefined);
  const [first] = present;
  if (first === undefined || present.length < rows.length) return undefined;
  const stacked = new Float32Array(rows.length * first.length);
  present.forEach((row, index) => stacked.set(row, index * first.length));
  return new Tensor(stacked, [rows.length, first.length]);
}

/** Stacks ragged lists of rows, `[B, T, V]`, NaN where one is missing; undefined without any. */
export function stackSequences(
  sequences: (Float32Array | undefined)[][],
): Tensor<Float32Array> | undefined {
  const first = sequences.flat().find((row) => row !== undefined);
  if (first === undefined) return undefined;
  const length = Math.max(...sequences.map((rows) => rows.length));
  const shape = [sequences.length, length, first.length];
  const stacked = new Tensor(new Float32Array(sequences.length * length * first.length).fill(NaN), shape);
  sequences.forEach((rows, b) => {
    rows.forEach((row, t) => {
      if (row !== undefined) stacked.row(b, t).set(row);
    });
  });
  return stacked;
}

/** Copies bytes to where elements of any size may begin. Node.js runs on little-endian machines. */
function aligned(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

function readHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}
