import { StringDecoder } from 'node:string_decoder'
import { CliError } from '../cli-error.ts'
import { EXIT } from '../exit-codes.ts'

/** A line of a file, and where it stands. */
export interface Line {
  /** Counted from 1. */
  readonly number: number
  readonly text: string
}

/** Longer than any key with all its settings. */
const MAX_LINE = 4_194_304

/** The lines of a stream, as many together as a chunk has; empty ones are left out. */
export async function* readLines(
  chunks: AsyncIterable<string | Uint8Array>,
): AsyncGenerator<readonly Line[]> {
  const decoder = new StringDecoder('utf8')
  let number = 0
  let rest = ''
  for await (const chunk of chunks) {
    const texts = (rest + (typeof chunk === 'string' ? chunk : decoder.write(chunk as Buffer))).split('\n')
    rest = texts.pop() as string
    if (rest.length > MAX_LINE)
      throw new CliError(`line ${number + texts.length + 1} is too long`, EXIT.failed)
    const lines: Line[] = []
    for (const text of texts) {
      number += 1
      if (text.trim() !== '') lines.push({ number, text })
    }
    yield lines
  }
  const last = rest + decoder.end()
  if (last.trim() !== '') yield [{ number: number + 1, text: last }]
}
