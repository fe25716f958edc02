import type { CliIo } from './io.ts'
import { type Configuration, loadConfig } from './load-config.ts'
import { openSession, type Session } from './open-session.ts'
import { type OpenStore, openStore } from './open-store.ts'
import type { Output } from './output.ts'

/** The options of every command. */
export interface CommonOptions {
  readonly json?: boolean
  readonly config?: string
  /** The name of a store other than the usual one. */
  readonly store?: string
}

/** What a command works with. What it opens is closed at its end. */
export class Context {
  private loading: Promise<Configuration> | null = null
  private readonly closing: (() => unknown)[] = []

  constructor(
    readonly io: CliIo,
    readonly output: Output,
    private readonly options: CommonOptions,
  ) {}

  configuration(): Promise<Configuration> {
    this.loading ??= loadConfig(this.io, this.options.config).then((configuration) => {
      const { close } = configuration.given
      if (close) this.closing.unshift(close)
      return configuration
    })
    return this.loading
  }

  /** @param isLook whether what the command does leaves no use behind */
  async openSession(isLook = false): Promise<Session> {
    const configuration = await this.configuration()
    const session = await openSession(this.io, this.output, configuration, this.options.store, isLook)
    this.closing.push(() => session.close())
    return session
  }

  /** @param name the store in `stores`, or `env:NAME`; that of `--store`, or the usual one, if left out */
  async openStore(name = this.options.store, mayCreate = false): Promise<OpenStore> {
    const opened = await openStore(this.io, this.output, await this.configuration(), name, mayCreate)
    this.closing.push(() => opened.close())
    return opened
  }

  /** Closes something when the command ends. */
  atEnd(close: () => unknown): void {
    this.closing.push(close)
  }

  /** Closes everything, last opened first. What cannot be closed cannot be helped. */
  async close(): Promise<void> {
    for (const close of this.closing.reverse()) {
      try {
        await close()
      } catch {
        // The command has done its work.
      }
    }
  }
}
