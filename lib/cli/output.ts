import { styleText } from 'node:util'
import { OutputError } from './cli-error.ts'
import { escapeText, toSafeJson } from './escape-text.ts'
import { type CliIo, hasColour } from './io.ts'
import { maskSecrets } from './mask-secrets.ts'

export type Style = 'bold' | 'dim' | 'green' | 'red' | 'yellow'

/** Where answers go: results to standard output, everything said about them to standard error. */
export class Output {
  /** Clears what is on the terminal's last line, such as progress. */
  clearLine: () => void = () => {}
  private readonly passwords = new Set<string>()

  constructor(
    private readonly io: CliIo,
    /** Whether a program reads the answer. */
    readonly isJson: boolean,
  ) {
    // Each write reports its own failure; without a listener, the process would end with a stack.
    for (const screen of [io.stdout, io.stderr]) screen.on('error', () => {})
  }

  /** A password of the configuration, which no message shows. */
  hide(password: string): void {
    this.passwords.add(password)
  }

  /** Whether a person looks at the answer. */
  get isTerminal(): boolean {
    return this.io.stdout.isTTY === true
  }

  /** The columns of the terminal; unbounded elsewhere. */
  get width(): number {
    return (this.isTerminal && this.io.stdout.columns) || Infinity
  }

  /** Writes text as it is. @throws OutputError */
  write(text: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error?: Error | null) => {
        if (error) reject(new OutputError((error as NodeJS.ErrnoException).code === 'EPIPE', error))
        else resolve()
      }
      this.clearLine()
      this.io.stdout.write(text, done)
    })
  }

  /** Writes a sentence, in which texts of users may stand. @throws OutputError */
  say(text: string): Promise<void> {
    return this.print(escapeText(this.mask(text)))
  }

  /** Writes lines. What comes from users has been escaped. @throws OutputError */
  print(line: string): Promise<void> {
    return this.write(`${line}\n`)
  }

  /** Writes a value as JSON. @throws OutputError */
  printJson(value: unknown): Promise<void> {
    return this.write(`${toSafeJson(value, 2)}\n`)
  }

  /** Says something about the answer. */
  note(text: string): void {
    this.clearLine()
    this.io.stderr.write(`${escapeText(this.mask(text))}\n`)
  }

  /** A note that is in nobody's way: programs do not read it. */
  remark(text: string): void {
    if (!this.isJson) this.note(text)
  }

  /** An error, as a program or a person reads it. */
  fail(code: string, message: string): void {
    const masked = this.mask(message)
    this.clearLine()
    const line = this.isJson
      ? toSafeJson({ error: { code, message: masked } })
      : `${this.paintError('latchkey:')} ${escapeText(masked)}`
    this.io.stderr.write(`${line}\n`)
  }

  mask(text: string): string {
    return maskSecrets(text, this.passwords)
  }

  paint(style: Style, text: string): string {
    return hasColour(this.io.stdout, this.io.env) ? styleText(style, text) : text
  }

  private paintError(text: string): string {
    return hasColour(this.io.stderr, this.io.env) ? styleText('red', text) : text
  }
}
