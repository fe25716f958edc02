/** What the command reads from and writes to. Tests hand in their own. */
export interface CliIo {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean }
  readonly stdout: Screen
  readonly stderr: Screen
  readonly env: Readonly<Record<string, string | undefined>>
  /** The folder that holds the configuration, and whose packages connect to the store. */
  readonly cwd: string
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal
  /** Whether whatever is written to standard output is lost. */
  readonly isOutputLost: boolean
}

export type Screen = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number }

/** Whether colours fit: on a terminal that has them, unless https://no-color.org is asked for. */
export function hasColour(screen: Screen, env: CliIo['env']): boolean {
  return screen.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb'
}
