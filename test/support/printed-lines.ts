import type { CurlAnswer } from './curl.ts'

export interface PrintedLine {
  title: string
  /** What the line is said to answer. */
  promised: string
  command: string
}

/** The commands that an example prints, each with what it promises. */
export function readPrintedLines(output: string): PrintedLine[] {
  return [...output.matchAll(/^(.+) → (.+)\n(curl .+)$/gm)].map(
    ([, title = '', promised = '', command = '']) => ({
      title,
      promised,
      command,
    }),
  )
}

/** Answers in the words of a promise: each status once, and the code of a problem. */
export function summaryOf(answers: CurlAnswer[]): string {
  const [{ status = 0, body = '' } = {}] = answers
  const others = answers.slice(1).filter((answer) => answer.status !== status)
  if (others.length > 0) {
    const isMixed = answers
      .slice(answers.indexOf(others[0] as CurlAnswer))
      .some((later) => later.status === status)
    return isMixed ? 'mixed' : `${status}, then ${others[0]?.status}`
  }
  const code = body.startsWith('{') ? JSON.parse(body).code : undefined
  return code === undefined ? String(status) : `${status} ${code}`
}
