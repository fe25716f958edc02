import { existsSync, readFileSync } from 'node:fs'

export interface CodeBlock {
  language: string
  text: string
  /** The heading that the block stands under. */
  heading: string
  line: number
}

/** Every fenced block, in the order of the page. */
export function readCodeBlocks(markdown: string): CodeBlock[] {
  const blocks: CodeBlock[] = []
  let heading = ''
  let open: CodeBlock | null = null
  for (const [i, line] of markdown.split('\n').entries()) {
    if (line.startsWith('```')) {
      if (open) blocks.push(open)
      open = open ? null : { language: line.slice(3), text: '', heading, line: i + 1 }
    } else if (open) open.text += `${line}\n`
    else heading = /^#+ (.+)/.exec(line)?.[1] ?? heading
  }
  if (open) throw new Error(`the block that opens at line ${open.line} is never closed`)
  return blocks
}

/** The links of a page into this repository that lead to no file, or to no heading of one. */
export function deadLinks(page: URL): string[] {
  const markdown = readFileSync(page, 'utf8')
  return [...markdown.matchAll(/\]\(([^)]+)\)/g)]
    .map(([, target]) => target as string)
    .filter((target) => !target.startsWith('https://'))
    .filter((target) => {
      const [path = '', anchor] = target.split('#')
      const file = path === '' ? page : new URL(path, page)
      if (!existsSync(file)) return true
      return anchor !== undefined && !anchorsOf(readFileSync(file, 'utf8')).includes(anchor)
    })
}

function anchorsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  )
}

/** The rows of the table whose first column has this title, cell by cell. */
export function readTable(markdown: string, title: string): string[][] {
  const lines = markdown.split('\n')
  const start = lines.findIndex((line) => line.startsWith('|') && cellsOf(line)[0] === title)
  if (start === -1) throw new Error(`there is no table that begins with "${title}"`)
  const rows = lines.slice(start + 2)
  return rows
    .slice(
      0,
      rows.findIndex((line) => !line.startsWith('|')),
    )
    .map(cellsOf)
}

/** What stands in backticks. */
export function codeIn(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, code]) => code as string)
}

function cellsOf(row: string): string[] {
  return row
    .slice(1, -1)
    .split('|')
    .map((cell) => cell.trim())
}
