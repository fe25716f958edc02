import { defineConfig } from 'tsdown'

export default defineConfig({
  // One entry for each door in package.json "exports".
  entry: {
    index: 'lib/index.ts',
    passport: 'lib/passport/index.ts',
    express: 'lib/express/index.ts',
    koa: 'lib/koa/index.ts',
    redis: 'lib/redis.ts',
    testing: 'lib/testing/index.ts',
    sql: 'lib/sql.ts',
    management: 'lib/management/index.ts',
    'management/express': 'lib/management/express.ts',
    'management/koa': 'lib/management/koa.ts',
    client: 'lib/client/index.ts',
    remote: 'lib/remote/index.ts',
  },
  format: ['esm', 'cjs'],
  platform: 'node',
  target: 'node20.19',
  // One output file for each source file. In shared chunks the CommonJS helpers landed in the passport door, and the
  // main door then loaded it.
  unbundle: true,
  // tsdown would rewrite "exports" by itself and open doors nobody asked for.
  exports: false,
  sourcemap: false,
  // Every type or module that is neither ours nor a declared dependency would be copied into dist.
  deps: { onlyBundle: [] },
  dts: { sourcemap: false },
  // Both formats are shipped on purpose.
  checks: { legacyCjs: false },
})
