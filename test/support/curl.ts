import { execFile, spawnSync } from 'node:child_process'
import { promisify } from 'node:util'

export interface CurlAnswer {
  status: number
  /** Names in lower case; empty where the command does not show them. */
  headers: Record<string, string>
  /** Empty where the command does not show it. */
  body: string
}

/** Runs a `curl` command as a reader would who pastes it, and returns the answers it shows. */
export type RunCurl = (command: string) => Promise<CurlAnswer[]>

/** Whether this machine has a shell and curl; a reader of the README may well have neither. */
export const hasCurl = spawnSync('sh', ['-c', 'curl --version'], { stdio: 'ignore' }).status === 0

/** Pastes commands into a shell whose working folder is `cwd`. */
export function shellIn(cwd: string): RunCurl {
  const run = promisify(execFile)
  return async (command) => {
    const { stdout } = await run('sh', ['-c', command], { cwd })
    if (command.includes('%{http_code}')) return stdout.trim().split('\n').map(statusOnly)
    return stdout.split(/^(?=HTTP\/1\.1 )/m).map(readAnswer)
  }
}

/** Sends what the commands would send, without curl, and keeps cookies as it would. */
export function fetcher(): RunCurl {
  const jars = new Map<string, string>()
  return async (command) => {
    const { urls, method, headers, data, readJar, writeJar, showsStatusOnly } = parseCurl(command)
    const cookie = readJar === undefined ? undefined : jars.get(readJar)
    const answers: CurlAnswer[] = []
    for (const url of urls) {
      const response = await fetch(url, {
        method: method ?? (data === undefined ? 'GET' : 'POST'),
        headers: cookie === undefined ? headers : { ...headers, cookie },
        ...(data !== undefined && { body: data }),
      })
      const given = response.headers.getSetCookie().map((line) => line.split(';')[0])
      if (writeJar !== undefined && given.length > 0) jars.set(writeJar, given.join('; '))
      const { status } = response
      const body = await response.text()
      answers.push(
        showsStatusOnly
          ? statusOnly(String(status))
          : { status, headers: Object.fromEntries(response.headers), body },
      )
    }
    return answers
  }
}

interface CurlRequest {
  urls: string[]
  method?: string
  headers: Record<string, string>
  data?: string
  readJar?: string
  writeJar?: string
  showsStatusOnly: boolean
}

/** Understands as much of curl's command line as the documentation uses; anything else is an error. */
function parseCurl(command: string): CurlRequest {
  const [program, ...words] = splitWords(command)
  if (program !== 'curl') throw new Error(`not a curl command: ${command}`)
  const request: CurlRequest = { urls: [], headers: {}, showsStatusOnly: false }
  while (words.length > 0) {
    const word = words.shift() as string
    if (word === '-i' || word === '-s') continue
    if (word === '-H') {
      const [, name = '', value = ''] = /^([^:]+): *(.*)$/.exec(words.shift() ?? '') ?? []
      request.headers[name.toLowerCase()] = value
    } else if (word === '-X') request.method = words.shift() ?? ''
    else if (word === '-d') request.data = words.shift() ?? ''
    else if (word === '-b') request.readJar = words.shift() ?? ''
    else if (word === '-c') request.writeJar = words.shift() ?? ''
    else if (word === '-o') words.shift()
    else if (word === '-w') request.showsStatusOnly = words.shift()?.includes('%{http_code}') ?? false
    else if (word.startsWith('http://')) request.urls.push(...expandRange(word))
    else throw new Error(`what does ${word} mean in: ${command}`)
  }
  return request
}

function splitWords(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|"([^"]*)"|([^\s'"]+)/g)].map(
    ([, single, double, bare]) => single ?? double ?? bare ?? '',
  )
}

/** `[1-8]` stands for eight addresses. */
function expandRange(url: string): string[] {
  const range = /\[(\d+)-(\d+)\]/.exec(url)
  if (!range) return [url]
  const [from, to] = [Number(range[1]), Number(range[2])]
  return Array.from({ length: to - from + 1 }, (_, i) => url.replace(range[0], String(from + i)))
}

function statusOnly(status: string): CurlAnswer {
  return { status: Number(status), headers: {}, body: '' }
}

function readAnswer(text: string): CurlAnswer {
  const end = text.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = text.slice(0, end).split('\r\n')
  const headers = lines.map((line) => [
    line.slice(0, line.indexOf(':')).toLowerCase(),
    line.slice(line.indexOf(':') + 1).trim(),
  ])
  return {
    status: Number(statusLine.split(' ')[1]),
    headers: Object.fromEntries(headers),
    body: text.slice(end + 4),
  }
}
