import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { InterruptedError, usageError } from './cli-error.ts'
import { escapeText } from './escape-text.ts'
import type { CliIo } from './io.ts'

/** Whether somebody is there to answer. */
function isAnswerable({ stdin, stderr }: CliIo): boolean {
  return stdin.isTTY === true && stderr.isTTY === true
}

/**
 * Asks before something that cannot be undone.
 *
 * @throws CliError where nobody can answer and `--yes` is not given.
 */
export async function confirm(io: CliIo, question: string, isAgreed: boolean): Promise<boolean> {
  if (isAgreed) return true
  if (!isAnswerable(io)) throw usageError(`${question} Without a terminal to ask on, add --yes.`)
  const answer = await ask(io, `${escapeText(question)} [y/N] `, io.stderr)
  return /^y(?:es)?$/i.test(answer.trim())
}

const MAX_KEY_INPUT = 4_096

/** Reads a key from standard input: what is typed on a terminal is not shown. @throws CliError if there is none. */
export async function readKey(io: CliIo): Promise<string> {
  const text = io.stdin.isTTY === true ? await askHidden(io, 'Key: ') : await readAll(io)
  const key = text.replace(/\r?\n$/, '')
  if (key === '') throw usageError('no key came on standard input')
  if (/[\r\n]/.test(key)) throw usageError('more than one line came on standard input: give one key')
  return key
}

async function readAll({ stdin }: CliIo): Promise<string> {
  let text = ''
  for await (const chunk of stdin) {
    text += chunk.toString()
    if (text.length > MAX_KEY_INPUT) throw usageError('what came on standard input is too long for a key')
  }
  return text
}

async function askHidden(io: CliIo, question: string): Promise<string> {
  // From here on the terminal shows nothing: whoever pastes a key does not wait for the question to end.
  const answer = ask(io, '', new Writable({ write: (_chunk, _encoding, done) => done() }))
  io.stderr.write(question)
  try {
    return await answer
  } finally {
    io.stderr.write('\n')
  }
}

function ask(io: CliIo, question: string, output: NodeJS.WritableStream): Promise<string> {
  const reader = createInterface({ input: io.stdin, output, terminal: true, historySize: 0 })
  return new Promise<string>((resolve, reject) => {
    const interrupt = () => reject(new InterruptedError())
    // A terminal in raw mode sends Ctrl-C as a character.
    reader.on('SIGINT', interrupt)
    reader.on('close', interrupt)
    io.signal.addEventListener('abort', interrupt, { once: true })
    reader.question(question, resolve)
  }).finally(() => reader.close())
}
