import type { CliIo } from './io.ts'
import type { Output } from './output.ts'

/** Shows how far long work is, on a terminal only. */
export interface Progress {
  /** Says how much is done, of `total` if that is known. */
  update(done: number): void
  end(): void
}

const EVERY_MS = 100
const SILENT: Progress = { update() {}, end() {} }
const CLEAR = '\r\u001b[2K'

/** `total` is null where nobody knows it. `show` turns an amount into text. */
export function startProgress(
  { stderr }: CliIo,
  output: Output,
  doing: string,
  total: number | null,
  show: (amount: number) => string = formatCount,
): Progress {
  if (stderr.isTTY !== true || output.isJson) return SILENT
  const startedAt = performance.now()
  let shownAt = -Infinity
  let isShown = false
  output.clearLine = () => {
    if (isShown) stderr.write(CLEAR)
    isShown = false
  }
  return {
    update(done) {
      const now = performance.now()
      if (now - shownAt < EVERY_MS) return
      shownAt = now
      isShown = true
      stderr.write(`${CLEAR}${describeProgress(doing, done, total, (now - startedAt) / 1_000, show)}`)
    },
    end() {
      output.clearLine()
      output.clearLine = () => {}
    },
  }
}

/** `Exporting  420,000 of 1,000,000  42 %  18,000/s  32 s left` */
export function describeProgress(
  doing: string,
  done: number,
  total: number | null,
  seconds: number,
  show: (amount: number) => string,
): string {
  const rate = seconds > 0 ? done / seconds : 0
  const parts = [doing, total === null ? show(done) : `${show(done)} of ${show(total)}`]
  if (total !== null && total > 0) parts.push(`${Math.min(100, Math.floor((done / total) * 100))} %`)
  if (rate > 0) parts.push(`${show(Math.round(rate))}/s`)
  if (total !== null && rate > 0) parts.push(`${formatSeconds(Math.max(0, total - done) / rate)} left`)
  return parts.join('  ')
}

export function formatCount(count: number): string {
  return count.toLocaleString('en-US')
}

export function formatBytes(bytes: number): string {
  return `${(bytes / 1_048_576).toFixed(1)} MB`
}

function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds)
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`
}
