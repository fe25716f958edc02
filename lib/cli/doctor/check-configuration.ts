import type { Configuration } from '../load-config.ts'
import { type Finding, findings } from './finding.ts'

const configuration = findings('configuration')
const proxy = findings('proxy')

/** What can be told from the configuration alone. */
export function checkConfiguration(given: Configuration): readonly Finding[] {
  return [checkFile(given), checkProxy(given)]
}

function checkFile({ file, isExposed, prefix, given }: Configuration): Finding {
  if (isExposed) {
    return configuration.problem(
      `others on this machine may read the passwords in ${nameOf(file)}: chmod 600, or env:NAME in their place`,
    )
  }
  const where = file === null ? 'from the environment' : `from ${nameOf(file)}`
  if (prefix === undefined && !given.keys) {
    return configuration.warning(`${where}, without "prefix": issue asks for --prefix`)
  }
  return configuration.ok(where)
}

function nameOf(file: string | null): string {
  return file?.split(/[\\/]/).at(-1) ?? ''
}

const EVERYONE = /^(?:0\.0\.0\.0|::|0:0:0:0:0:0:0:0)\/0$/

/** Whether clients could choose the address that `allowedIps` and `failedAttempts` go by. */
function checkProxy({ given: { trustProxy } }: Configuration): Finding {
  if (trustProxy === undefined) {
    return proxy.unknown('"trustProxy" of the configuration does not say what your application trusts')
  }
  if (trustProxy === true) {
    return proxy.problem(
      'all proxies are trusted, so that a client chooses its address by a header: trust their number or their addresses',
    )
  }
  const trusted = typeof trustProxy === 'string' ? trustProxy.split(',') : trustProxy
  if (Array.isArray(trusted) && trusted.some((one) => EVERYONE.test(String(one).trim()))) {
    return proxy.problem(
      'every address is trusted as a proxy, so that a client chooses its address by a header',
    )
  }
  if (trustProxy === false || trustProxy === 0) {
    return proxy.ok('no proxy is trusted: right if clients connect directly')
  }
  if (typeof trustProxy === 'number') {
    return proxy.ok(`${trustProxy} proxies are trusted: right if every request passes exactly as many`)
  }
  return proxy.ok('named proxies are trusted')
}
